//! What backup and restore print.

use snapbox::{IntoData, assert_data_eq, str};

use crate::support::pricesync::Given;
use crate::support::transcript::transcript;

#[test]
fn backup_writes_and_refuses() {
    let given = Given::shop();
    let shown = transcript(
        &given,
        &[
            "backup --out b",
            "backup --tenant none --out b",
            "backup --all --jobs 1 --out b",
            "backup verify b",
            "backup verify none",
        ],
    );
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync backup --out b
--- stderr
error: no tenant is selected: use --tenant, --where, --from-file, or --all
--- exit 2

$ pricesync backup --tenant none --out b
--- stderr
error: no tenant has the slug, schema or host 'none'
  hint: list the tenants: pricesync list-tenants
--- exit 4

$ pricesync backup --all --jobs 1 --out b
--- stdout
┌─┬─┬─┬─┬─┐
│ tenant ┆ tables ┆ rows ┆ bytes ┆ file │
╞═╪═╪═╪═╪═╡
│ acme ┆ 5 ┆ 8 ┆ [..] ┆ b/acme.[MOMENT].backup │
│ globex ┆ 5 ┆ 8 ┆ [..] ┆ b/globex.[MOMENT].backup │
└─┴─┴─┴─┴─┘
--- stderr
✓ [1/2] tenant_acme 5 tables, 8 rows, [SIZE] [TIME]
✓ [2/2] tenant_globex 5 tables, 8 rows, [SIZE] [TIME]
2 schemas: 2 backed up, 0 failed, 0 skipped, 0 not started · [TIME]
2 files in b, [SIZE]
--- exit 0

$ pricesync backup verify b
--- stderr
error: b
  caused by: Is a directory
--- exit 1

$ pricesync backup verify none
--- stderr
error: none
  caused by: No such file or directory
--- exit 4


"#]]
        .raw()
    );
}

#[test]
fn restore_brings_back_and_refuses() {
    let given = Given::shop();
    given.run(&["backup", "--tenant=acme", "--out=b", "-o=names"]).exits(0);
    let file = std::fs::read_dir(given.dir.path().join("b")).unwrap().next().unwrap().unwrap();
    std::fs::rename(file.path(), given.dir.path().join("acme.backup")).unwrap();
    let shown = transcript(
        &given,
        &[
            "restore acme.backup",
            "restore acme.backup --as copy",
            "restore none.backup",
            "restore pricesync.toml",
        ],
    );
    assert_data_eq!(shown, str![[r#"
$ pricesync restore acme.backup
--- stderr
error: slug 'acme' is taken by tenant 'acme' (acme)
  hint: nothing was changed
  hint: move the other tenant to the trash (drop-schema --trash), or restore as another tenant: pricesync restore acme.backup --as SLUG
--- exit 7

$ pricesync restore acme.backup --as copy
--- stdout
✓ Restored: acme (slug=copy, schema=tenant_copy, 0 hosts) from [MOMENT], 5 tables, 8 rows, [TIME]
--- exit 0

$ pricesync restore none.backup
--- stderr
error: none.backup
  caused by: No such file or directory
--- exit 4

$ pricesync restore pricesync.toml
--- stderr
error: pricesync.toml
  caused by: not a backup of pricesync
--- exit 11


"#]].raw());
}

//! The migration sets of other projects as the migrations of tenants: `make test-real`.
//!
//! `scripts/real-sets.sh` downloads packages into `target/real-sets`; `PRICESYNC_REAL_SETS` names a
//! folder of source trees, one folder a set. A set prints one line of what was seen.

use std::env;
use std::fs;
use std::io::Write as _;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::support::contents::{contents, difference, run_by_psql};
use crate::support::pricesync::Given;

const SLUGS: [&str; 5] = ["t1", "t2", "t3", "t4", "t5"];

/// The files of a set, in its own order: by leading number, then by path.
fn files(set: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![set.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_sql = path.extension().is_some_and(|extension| extension == "sql");
            let stem = path.file_stem().unwrap().to_string_lossy().to_lowercase();
            if path.is_dir() {
                folders.push(path);
            } else if is_sql && !stem.ends_with("down") {
                found.push(path);
            }
        }
    }
    found.sort_by_key(|path| {
        let name = path.strip_prefix(set).unwrap().to_string_lossy().into_owned();
        let digits = name.trim_start_matches(['V', 'v']).split(|c: char| !c.is_ascii_digit());
        (digits.into_iter().next().and_then(|digits| digits.parse::<u64>().ok()), name)
    });
    found
}

/// Moves `CREATE EXTENSION` into the shared set and removes the schema `public` from names, as the
/// author of a tenant's files would have written them. Returns both texts.
fn converted(text: &str) -> (String, String) {
    let (mut tenant, mut shared) = (String::new(), String::new());
    for line in text.replace("\"public\".", "").replace("public.", "").lines() {
        let is_extension = line.trim_start().to_lowercase().starts_with("create extension");
        let to = if is_extension { &mut shared } else { &mut tenant };
        to.push_str(line);
        to.push('\n');
    }
    (tenant, shared)
}

/// Writes a set into a project and returns the tenant's files in their order.
fn write(set: &Path, given: &Given) -> Vec<PathBuf> {
    let mut written = Vec::new();
    let mut extensions = String::new();
    for (index, path) in files(set).into_iter().enumerate() {
        let text = fs::read_to_string(&path).unwrap();
        let (tenant, shared) = converted(&text);
        extensions.push_str(&shared);
        let name = path.strip_prefix(set).unwrap().with_extension("");
        let name = name.to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let file = format!("V{}__{}.sql", index + 1, name.trim_matches('_'));
        given.tenant_file(&file, tenant);
        written.push(given.dir.path().join("migrations/tenant").join(file));
    }
    if !extensions.is_empty() {
        given.shared_file("V2__extensions.sql", extensions);
    }
    written
}

/// Returns a database in which psql ran the files, each in a session and a transaction of its own.
fn by_psql(files: &[PathBuf], shared: &Path) -> Given {
    let given = Given::nothing();
    if shared.exists() {
        given.database.psql(&["-f", shared.to_str().unwrap()]);
    }
    run_by_psql(&given, "tenant_t1", files);
    given
}

/// Takes a set through the life of a tenant and returns the line that says what was seen, or which
/// step went wrong.
fn lives(set: &Path) -> Result<String, String> {
    let given = Given::tenants(&SLUGS);
    let files = write(set, &given);
    let step = |args: &[&str]| {
        let ran = given.run(args);
        match ran.code() {
            Some(0) => Ok(ran.told()),
            code => {
                let text = ran.told().stderr;
                let says =
                    |line: &&str| ["error: ", "caused by: "].iter().any(|it| line.contains(it));
                let lines: Vec<_> = text.lines().filter(says).take(4).map(str::trim).collect();
                Err(format!("{}: exit {code:?}: {}", args.join(" "), lines.join(" | ")))
            }
        }
    };
    let start = Instant::now();
    step(&["migrate-schemas"])?;
    let took = start.elapsed().as_secs_f64();
    let shared = given.dir.path().join("migrations/shared/V2__extensions.sql");
    let psql = by_psql(&files, &shared);
    let again = by_psql(&files, &shared);
    // Rows with random values are not equal in two runs of psql either.
    let [rows, others] = [&psql, &again].map(|given| contents(given, "tenant_t1", &[]));
    let (options, compared): (&[&str], _) = if rows == others {
        (&[], "structure and rows")
    } else {
        (&["-s"], "structure (rows are random)")
    };
    let expected = contents(&psql, "tenant_t1", options);
    let equal = |what: &str, schema: &str| match difference(
        &expected,
        &contents(&given, schema, options),
    ) {
        None => Ok(()),
        Some(difference) => Err(format!("{what} differs from psql's: {difference}")),
    };
    for slug in SLUGS {
        equal("the migrated tenant", &format!("tenant_{slug}"))?;
    }
    step(&["drift"])?;
    step(&["backup", "--tenant=t1", "--out=saved"])?;
    let saved = fs::read_dir(given.dir.path().join("saved")).unwrap();
    let saved = saved.map(|entry| entry.unwrap().path()).next().unwrap();
    step(&["restore", saved.to_str().unwrap(), "--as=restored"])?;
    equal("the restored tenant", "tenant_restored")?;
    step(&["clone-tenant", "--from=t2", "--slug=cloned"])?;
    equal("the cloned tenant", "tenant_cloned")?;
    step(&["rename-tenant", "--tenant=t3", "--slug=renamed"])?;
    equal("the renamed tenant", "tenant_renamed")?;
    let made = step(&["-v", "create-tenant", "--name=new", "--slug=new"])?;
    equal("the tenant made from nothing", "tenant_new")?;
    step(&["drift"])?;
    step(&["doctor"])?;
    let why_not = made.stderr.lines().find(|line| line.contains("no template"));
    let is_stored = given.value("SELECT count(*) > 0 FROM pricesync.template") == "t";
    let template = match why_not {
        Some(why_not) => why_not,
        None if is_stored => "made from a template",
        None => "nothing was said of a template",
    };
    Ok(format!(
        "{} files, 5 tenants in {took:.1} s; {compared} equal to psql: migrated, restored, cloned, renamed, made from nothing; {}",
        files.len(),
        template.trim()
    ))
}

#[test]
#[ignore = "downloads packages: make test-real"]
fn sets_of_other_projects_equal_what_psql_makes() {
    let downloaded = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/real-sets");
    let given = env::var_os("PRICESYNC_REAL_SETS").map(PathBuf::from);
    let mut sets = Vec::new();
    for folder in given.into_iter().chain([downloaded]) {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        sets.extend(entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()));
    }
    assert!(!sets.is_empty(), "no set was found");
    let mut wrong = Vec::new();
    for set in sets {
        let name = set.file_name().unwrap().to_string_lossy().into_owned();
        // A set that psql cannot run must not end the others.
        let seen = catch_unwind(|| lives(&set)).unwrap_or_else(|_| Err("psql failed".to_owned()));
        let line = match &seen {
            Ok(line) => format!("{name}: {line}"),
            Err(why) => format!("{name}: {} files: {why}", files(&set).len()),
        };
        let _ = writeln!(std::io::stdout(), "{line}");
        if seen.is_err() {
            wrong.push(line);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

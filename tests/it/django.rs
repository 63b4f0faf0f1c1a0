//! A real django-tenants site over a database of ours, and pricesync over a database of its own.
//!
//! django-tenants is installed from `PyPI` into `target/django`: `make django`.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::pricesync::{Counts, Given, NONE};

const PACKAGES: [&str; 3] = ["django-tenants==3.5.0", "Django>=4.2,<5", "psycopg2-binary"];

/// The site, file by file.
const FILES: [(&str, &str); 10] = [
    ("manage.py", include_str!("../django/manage.py")),
    ("settings.py", include_str!("../django/settings.py")),
    ("visit.py", include_str!("../django/visit.py")),
    ("web/__init__.py", ""),
    ("web/urls.py", include_str!("../django/web/urls.py")),
    ("tenants/__init__.py", ""),
    ("tenants/models.py", include_str!("../django/tenants/models.py")),
    ("customers/__init__.py", ""),
    ("customers/models.py", include_str!("../django/customers/models.py")),
    ("shop/models.py", include_str!("../django/shop/models.py")),
];

/// A site with its Python.
struct Site<'a> {
    python: PathBuf,
    given: &'a Given,
    catalog: &'static str,
}

impl<'a> Site<'a> {
    /// Installs django-tenants once and writes the site beside the project; nothing where it
    /// cannot be installed.
    fn over(given: &'a Given, catalog: &'static str) -> Option<Self> {
        let python = match installed() {
            Ok(python) => python,
            Err(why) => {
                let _ = writeln!(std::io::stderr(), "skipped: no django-tenants: {why}");
                return None;
            }
        };
        for (name, text) in FILES {
            given.file(&format!("site/{name}"), text);
        }
        given.file("site/shop/__init__.py", "");
        Some(Self { python, given, catalog })
    }

    /// Runs a script of the site and returns what it printed.
    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let url = self.given.database.url();
        let host = url.split("host=").nth(1).and_then(|rest| rest.split('&').next());
        let name = url.split('?').next().and_then(|place| place.rsplit('/').next());
        let output = Command::new(&self.python)
            .args(args)
            .current_dir(self.given.dir.path().join("site"))
            .env("CATALOG", self.catalog)
            .env("DATABASE_HOST", host.unwrap())
            .env("DATABASE_NAME", name.unwrap())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}");
        let text = String::from_utf8(output.stdout).unwrap();
        say(&format!("$ python {}\n{text}", args.join(" ")));
        text
    }
}

/// Shown by `--nocapture`.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn installed() -> Result<PathBuf, String> {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/django");
    let python = venv.join("bin/python");
    if venv.join("installed").exists() {
        return Ok(python);
    }
    let step = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    };
    let python3 = env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    step(Command::new(python3).args(["-m", "venv"]).arg(&venv))?;
    step(
        Command::new(&python)
            .args(["-m", "pip", "--disable-pip-version-check", "-q", "install"])
            .args(PACKAGES),
    )?;
    fs::write(venv.join("installed"), "").map_err(|error| error.to_string())?;
    Ok(python)
}

fn shown(given: &Given, args: &[&str]) -> String {
    let told = given.run(args).exits(0);
    say(&format!("$ pricesync {}\n{}", args.join(" "), told.stdout));
    told.stdout
}

#[test]
#[ignore = "installs django-tenants from PyPI: make django"]
fn a_django_site_serves_two_hosts_from_a_database_of_ours() {
    let given = Given::shipped();
    let Some(site) = Site::over(&given, "tenants") else {
        return;
    };
    shown(&given, &["migrate-schemas", "--shared"]);
    for (slug, name) in [("acme", "Acme Inc."), ("globex", "Công ty Globex")] {
        let host = format!("{slug}.example.com");
        shown(&given, &["create-tenant", "--name", name, "--slug", slug, "--domain", &host]);
        given.database.execute(&format!(
            "INSERT INTO tenant_{slug}.products (sku, name, price) VALUES ('A-1', 'Anvil of {slug}', 120)"
        ));
    }
    assert_eq!(
        site.run(&["visit.py", "acme.example.com", "globex.example.com", "unknown.example.com"]),
        "acme.example.com 200 {\"tenant\": \"Acme Inc.\", \"schema\": \"tenant_acme\", \"products\": [\"Anvil of acme\"]}\n\
         globex.example.com 200 {\"tenant\": \"C\\u00f4ng ty Globex\", \"schema\": \"tenant_globex\", \"products\": [\"Anvil of globex\"]}\n\
         unknown.example.com 404 \n"
    );
    // What Django would migrate by itself is recorded as applied; then it has nothing to do.
    site.run(&["manage.py", "migrate_schemas", "--shared", "--fake", "-v", "0"]);
    assert!(!site.run(&["manage.py", "migrate_schemas", "--shared", "--list"]).contains("[ ]"));
    // Django's own users are in the table that our files made.
    let user = "from django.contrib.auth.models import User; u = User.objects.create_superuser('root', 'root@example.com', 'secret'); print(u.pk, u.check_password('secret'))";
    assert!(site.run(&["manage.py", "shell", "-c", user]).ends_with("1 True\n"));
    assert_eq!(given.value("SELECT username FROM auth_user"), "root");
    // pricesync goes on as before, and the site sees the next tenant at once.
    given.tenant_file("V90__weight.sql", "ALTER TABLE products ADD weight int;");
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 2, up_to_date: 1, ..NONE });
    shown(
        &given,
        &[
            "create-tenant",
            "--name",
            "Initech",
            "--slug",
            "initech",
            "--domain",
            "initech.example.com",
        ],
    );
    assert_eq!(
        site.run(&["visit.py", "initech.example.com"]),
        "initech.example.com 200 {\"tenant\": \"Initech\", \"schema\": \"tenant_initech\", \"products\": []}\n"
    );
    given.run(&["doctor"]).exits(0);
}

#[test]
#[ignore = "installs django-tenants from PyPI: make django"]
fn a_django_tenants_database_is_listed_adopted_and_migrated() {
    let given = Given::nothing();
    let Some(site) = Site::over(&given, "customers") else {
        return;
    };
    site.run(&["manage.py", "makemigrations", "-v", "0", "customers", "shop"]);
    site.run(&["manage.py", "migrate_schemas", "--shared", "-v", "0"]);
    let create = "from customers.models import Client, Domain\n\
        for schema, name in [('public', 'Shared'), ('acme', 'Acme Inc.'), ('globex', 'Công ty Globex')]:\n    \
        c = Client.objects.create(schema_name=schema, name=name, paid_until='2030-01-01', on_trial=False)\n    \
        Domain.objects.create(domain=schema + '.example.com', is_primary=True, tenant=c)";
    site.run(&["manage.py", "shell", "-c", create]);
    given.file(
        "pricesync.toml",
        "[catalog]\ntenant_table = \"customers_client\"\ndomain_table = \"customers_domain\"\nslug_column = \"\"\n\
         created_column = \"created_on\"\nschema_prefix = \"\"\n",
    );
    let listed = shown(&given, &["list-tenants", "-o", "csv"]);
    assert!(listed.contains("2,Acme Inc.,acme,acme,acme.example.com,"), "{listed}");
    assert!(!listed.contains("Shared"));
    // The first file is what Django itself says that its migration does.
    let sql =
        site.run(&["manage.py", "tenant_command", "sqlmigrate", "-s", "acme", "shop", "0001"]);
    let sql: Vec<&str> =
        sql.lines().filter(|line| !matches!(*line, "BEGIN;" | "COMMIT;")).collect();
    given.tenant_file("V1__products.sql", sql.join("\n"));
    assert!(
        shown(&given, &["baseline", "--to", "1", "--dry-run"])
            .contains("1 migration would be recorded")
    );
    given.run(&["baseline", "--to", "1"]).exits(0).counts(Counts { migrated: 2, ..NONE });
    given.tenant_file("V2__weight.sql", "ALTER TABLE products ADD weight int;");
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 2, up_to_date: 1, ..NONE });
    shown(&given, &["status", "--verify"]);
    // A tenant that pricesync makes is one of Django's.
    let args = [
        "create-tenant",
        "--name",
        "Initech",
        "--slug",
        "initech",
        "--domain",
        "initech.example.com",
    ];
    given.run(&args).exits(7).says("say what it gets with --set paid_until=VALUE");
    shown(
        &given,
        &[&args[..], &["--set", "paid_until=2031-01-01", "--set", "on_trial=true"]].concat(),
    );
    let add = "from django_tenants.utils import schema_context\nfrom shop.models import Product\n\
        for schema in ['acme', 'initech']:\n    with schema_context(schema): Product.objects.create(sku='A', name='of ' + schema, price=1)";
    site.run(&["manage.py", "shell", "-c", add]);
    assert_eq!(
        site.run(&["visit.py", "acme.example.com", "initech.example.com"]),
        "acme.example.com 200 {\"tenant\": \"Acme Inc.\", \"schema\": \"acme\", \"products\": [\"of acme\"]}\n\
         initech.example.com 200 {\"tenant\": \"Initech\", \"schema\": \"initech\", \"products\": [\"of initech\"]}\n"
    );
    // Where Django should know that its migrations are there.
    site.run(&["manage.py", "migrate_schemas", "-s", "initech", "--fake", "-v", "0"]);
    given.run(&["drop-schema", "--force", "--tenant", "globex.example.com"]).exits(0);
    assert!(site.run(&["visit.py", "globex.example.com"]).contains(" 404 "));
    given.run(&["doctor"]).exits(0);
}

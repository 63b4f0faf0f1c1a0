//! Files that try to leave their tenant or their transaction, and files that only look like it.
//!
//! The first line of each file in `tests/hostile` says how it must end.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process};

use crate::support::database;
use crate::support::pricesync::Given;
use crate::support::server;

/// What only `public` has, another tenant, a role, and things of the whole database.
const OUTSIDE: &str = "CREATE TABLE plans (id int);\
     CREATE TABLE rates (id int PRIMARY KEY, rate numeric); INSERT INTO rates VALUES (1, 0.2), (2, 0.1);\
     CREATE TRIGGER watch BEFORE UPDATE ON rates FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();\
     CREATE SEQUENCE numbers; CREATE TYPE mood AS ENUM ('good');\
     CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n';\
     CREATE OPERATOR public.!!! (RIGHTARG = int, FUNCTION = twice);\
     CREATE EXTENSION hstore; CREATE PUBLICATION feed FOR TABLE plans; SELECT lo_from_bytea(4711, 'kept');\
     CREATE TABLE tenant_globex.treasure (id int); INSERT INTO tenant_globex.treasure VALUES (1);\
     CREATE ROLE hostile_reader; CREATE ROLE hostile_spare;\
     GRANT SELECT ON rates TO hostile_reader";

/// What no dump of a database holds.
const SERVER: &str = "SELECT concat_ws(' ', 'role', rolname, rolsuper, shobj_description(oid, 'pg_authid')) FROM pg_roles WHERE rolname ~ '^hostile(_|$)' \
     UNION ALL SELECT concat_ws(' ', 'member', roleid::regrole, member::regrole) FROM pg_auth_members WHERE member::regrole::text ~ '^hostile(_|$)' \
     UNION ALL SELECT concat_ws(' ', 'setting', setrole, setconfig) FROM pg_db_role_setting WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) \
     UNION ALL SELECT concat_ws(' ', 'database', datname ~ 'hostile', CASE WHEN datname = current_database() THEN concat(datacl, shobj_description(oid, 'pg_database')) END) \
     FROM pg_database WHERE datname = current_database() OR datname ~ '^hostile(_|$)' \
     UNION ALL SELECT concat_ws(' ', 'prepared', gid) FROM pg_prepared_xacts WHERE gid ~ 'hostile(_|$)' ORDER BY 1";

/// Two tenants and what lies outside of them. Roles belong to the whole server, so everything
/// that is called hostile has a name of its own here.
struct Place {
    given: Option<Given>,
    word: String,
}

impl Place {
    fn new(ledger: bool) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let place = Self {
            given: Some(Given::tenants(&["acme", "globex"])),
            word: format!("hostile_{}_{number}", process::id()),
        };
        place.database.execute(&place.named(OUTSIDE));
        // What is allowed to another table allows nothing else.
        place.database.execute("CREATE TABLE allowed (id int)");
        place.file("pricesync.toml", "[guard]\nallow_writes = [\"public.allowed\"]\n");
        if !ledger {
            // As where the role may not have one: the guard asks without the function.
            place.database.execute("DROP FUNCTION pricesync.finish");
        }
        place
    }

    fn named(&self, text: &str) -> String {
        text.replace("hostile", &self.word)
    }

    /// The causes that were said, in one order and without numbers, which differ from place to place.
    fn causes(&self, said: &str) -> BTreeSet<String> {
        let text = said.replace(&self.word, "hostile");
        let causes = text.lines().filter(|line| line.starts_with("  caused by: "));
        causes.map(|line| line.replace(|c: char| c.is_ascii_digit(), "")).collect()
    }

    /// Everything that a file of `tenant_acme` must not change, and with `own` also that schema.
    fn state(&self, own: bool) -> String {
        let mut options = vec!["-N", "pricesync", "-b"];
        if !own {
            options.extend(["-N", "tenant_acme"]);
        }
        let server = self.column(&self.named(SERVER)).join("\n");
        format!("{}{server}", self.dump(&options))
    }
}

impl Deref for Place {
    type Target = Given;

    fn deref(&self) -> &Given {
        self.given.as_ref().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What the roles have been granted goes with the database.
        self.given = None;
        let drop = "DROP ROLE IF EXISTS hostile_reader, hostile_spare, hostile_new, hostile";
        let _ = database::run(&server::url(), &self.named(drop));
    }
}

/// Runs the files that are expected to end like this, with the ledger and without, and returns how
/// many there were.
fn all_end(expected: &str) -> usize {
    let [with, without] = [true, false].map(|ledger| answers(expected, ledger));
    for (with, without) in with.iter().zip(&without) {
        assert_eq!(with, without, "the second is said where there is no ledger");
    }
    with.len()
}

/// Runs the files that are expected to end like this, and returns what was said about each.
fn answers(expected: &str, ledger: bool) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut given = Place::new(ledger);
    let mut before = given.state(true);
    let mut outside = given.state(false);
    let mut answers = Vec::new();
    let mut wrong = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let (first, _) = text.split_once('\n').unwrap();
        if first != format!("-- {expected}") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        let file = format!("V1__{name}.sql");
        given.tenant_file(&file, given.named(&text));
        let ran = given.run(&["migrate-schemas", "--tenant=acme"]);
        let code = ran.code();
        let said = ran.told().stderr;
        given.remove_tenant_file(&file);
        let named = said.contains(&format!("V1__{name}"));
        let left = said.contains("reached outside its schema") || said.contains("it left ");
        let right = match expected {
            "refused at load" => code == Some(2) && named,
            "refused by the server" => code == Some(10) && named && !left,
            "refused by the guard" => code == Some(10) && named && left,
            _ => code == Some(0),
        };
        if !right {
            wrong.push(format!("{name}: {code:?} {said}"));
        }
        answers.push(format!("{name}: {code:?} {:?}", given.causes(&said)));
        let harmless = code == Some(0);
        let after = given.state(!harmless);
        // A sequence does not take back what it gave.
        let same = |before: &str| without_counter(before) == without_counter(&after);
        if !same(if harmless { &outside } else { &before }) {
            let differs = |line: &&str| !before.contains(*line);
            let lines: Vec<_> = after.lines().filter(differs).take(9).collect();
            wrong.push(format!("{name}: changed what it should not: {lines:?}"));
        }
        if harmless || !same(&before) {
            given = Place::new(ledger);
            before = given.state(true);
            outside = given.state(false);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    answers
}

fn without_counter(state: &str) -> Vec<&str> {
    let counts = |line: &&str| !line.contains("setval('public.numbers'");
    state.lines().filter(counts).collect()
}

#[test]
fn what_can_be_read_is_refused_before_anything_runs() {
    assert!(all_end("refused at load") >= 50);
}

#[test]
fn what_would_end_the_transaction_is_refused_by_the_server() {
    assert!(all_end("refused by the server") >= 5);
}

#[test]
fn what_is_hidden_is_found_before_it_is_committed() {
    assert!(all_end("refused by the guard") >= 60);
}

#[test]
fn nothing_of_it_stays_on_the_server() {
    let place = Place::new(true);
    let roles = place.named("SELECT rolname FROM pg_roles WHERE rolname ~ '^hostile_' ORDER BY 1");
    assert_eq!(place.column(&roles).len(), 2);
    drop(place);
    assert!(database::run(&server::url(), &roles).unwrap().is_empty());
}

#[test]
fn what_only_looks_hostile_is_let_through() {
    assert!(all_end("harmless") >= 15);
}

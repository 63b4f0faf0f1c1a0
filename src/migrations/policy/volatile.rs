//! Names and literals whose meaning depends on the time, on chance, or on what is outside of a schema.

use std::collections::{HashMap, HashSet};

use crate::migrations::sql::keywords::Keywords;
use crate::migrations::sql::lexer::TokenKind;

/// Keywords that are the time, without parentheses.
const CLOCK: &[&str] =
    &["current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"];

/// What is the start of the transaction, exactly: two runs and a template show whether a row holds it.
const START: &[&str] = &["now", "transaction_timestamp", "current_timestamp", "localtimestamp"];

/// Functions by what is wrong with them.
const FUNCTIONS: [(&str, &str); 3] = [
    (
        "is the time at which the statement runs",
        "now clock_timestamp statement_timestamp transaction_timestamp timeofday age",
    ),
    (
        "returns another value in each run",
        "random random_normal setseed gen_random_uuid gen_random_bytes gen_salt \
         uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4 uuidv4 uuidv7",
    ),
    (
        "reads or changes something outside of the schema",
        "pg_notify pg_backend_pid inet_client_addr inet_client_port txid_current \
         pg_current_xact_id pg_read_file pg_read_binary_file pg_ls_dir pg_has_role \
         to_regrole dblink dblink_exec",
    ),
];

/// Catalogs of the whole database or server.
const SERVER_CATALOGS: &str = "pg_roles pg_authid pg_user pg_shadow pg_auth_members pg_database pg_settings \
     pg_db_role_setting pg_extension pg_available_extensions pg_tablespace \
     pg_stat_activity";

/// The byte in a statement, and why the statement does not do the same in every empty schema.
pub(super) type Problem = (usize, String);

/// Names that are known to be volatile.
pub(super) struct Volatile<'a> {
    /// Tables of other schemas that the files lock when they run.
    outside: &'a HashSet<String>,
    /// Functions of the files with a problem in their code.
    tainted: HashMap<String, String>,
}

impl<'a> Volatile<'a> {
    pub(super) fn new(outside: &'a HashSet<String>) -> Self {
        Self { outside, tainted: HashMap::new() }
    }

    /// Notes the problem in the code of a function.
    pub(super) fn taint(&mut self, function: String, why: String) {
        self.tainted.insert(function, why);
    }

    pub(super) fn is_outside(&self, table: &str) -> bool {
        self.outside.contains(table)
    }

    /// Returns the first name or call that is not the same in every run.
    pub(super) fn problem(&self, level: Keywords<'_>) -> Option<Problem> {
        (0..level.len()).find_map(|at| {
            let why = self.problem_at(level, at)?;
            Some((level.offset(at)?, why))
        })
    }

    fn problem_at(&self, level: Keywords<'_>, at: usize) -> Option<String> {
        let previous = if at > 0 { level.text(at - 1) } else { "" };
        if level.kind(at) == Some(TokenKind::Literal) {
            let is_name = previous == "(" && at > 1 && is_to_regclass(level.text(at - 2))
                || level.text(at + 1) == ":";
            let text = level.text(at).trim_matches('\'');
            let of_public = is_name && text.starts_with("public.");
            return of_public
                .then(|| format!("it depends on {text}, which may change"))
                .or_else(|| is_time(level.text(at)).then(|| format!("'{text}' is a time")));
        }
        let name = level.identifier(at)?;
        if START.contains(&&*name) && is_stored(level, at) {
            return None;
        }
        if level.kind(at + 1) == Some(TokenKind::Open) {
            return self.problem_of_call(&name, level.text(at + 2));
        }
        if previous != "." && level.is_any(at, CLOCK) {
            return Some(format!("{name} is the time at which the statement runs"));
        }
        if is_in(SERVER_CATALOGS, &name) {
            return Some(format!("{name} belongs to the whole server and may change"));
        }
        let follows = ["from", "join", "into", "update", "using", "table", "only", ","];
        if name == "public"
            && level.text(at + 1) == "."
            && follows.iter().any(|word| previous.eq_ignore_ascii_case(word))
            && level.kind(at + 3) != Some(TokenKind::Open)
        {
            return Some(format!("it depends on public.{}, which may change", level.text(at + 2)));
        }
        self.is_outside(&name)
            .then(|| format!("it depends on {name} of another schema, which may change"))
    }

    fn problem_of_call(&self, name: &str, argument: &str) -> Option<String> {
        if let Some((why, _)) = FUNCTIONS.iter().find(|(_, names)| is_in(names, name)) {
            return Some(format!("{name}() {why}"));
        }
        let version = ["'server_version_num'", "'server_version'"];
        if name == "current_setting" && !version.contains(&argument) {
            return Some("it reads a setting, which may change".to_owned());
        }
        self.tainted.get(name).map(|why| format!("it calls {name}: {why}"))
    }
}

/// Returns whether the time at this index is stored as it is, and nothing is computed from it: in a list
/// of `VALUES` or `SELECT`, after `SET x =`, or as a `DEFAULT`.
fn is_stored(level: Keywords<'_>, at: usize) -> bool {
    let is_call = level.text(at + 1) == "(" && level.text(at + 2) == ")";
    let next = level.text(at + if is_call { 3 } else { 1 }).to_ascii_lowercase();
    let stands_alone = at > 1
        && (matches!(level.text(at - 1), "(" | ",")
            || level.text(at - 1) == "=" && level.text(at - 2) != ":"
            || level.is_any(at - 1, &["select", "default"]))
        && matches!(&*next, "," | ")" | "" | ";" | "as" | "from" | "not" | "where");
    let mut depth = 0_usize;
    let open = (0..at).rev().find(|&index| {
        match level.kind(index) {
            Some(TokenKind::Close) => depth += 1,
            Some(TokenKind::Open) if depth == 0 => return true,
            Some(TokenKind::Open) => depth -= 1,
            _ => {}
        }
        false
    });
    let in_list = open.is_none_or(|open| {
        open > 0 && (level.is(open - 1, "values") || level.text(open - 1) == ",")
    });
    let conditions = ["where", "when", "if", "while", "case", "join", "having"];
    stands_alone && in_list && (0..at).all(|index| !level.is_any(index, &conditions))
}

/// Returns whether a list of words contains a name.
pub(super) fn is_in(words: &str, name: &str) -> bool {
    words.split(' ').any(|word| word == name)
}

fn is_to_regclass(word: &str) -> bool {
    word.to_ascii_lowercase().starts_with("to_reg")
}

/// Finds a literal in a definition that is stored as the time at which it is read.
pub(super) fn time_literal(keywords: Keywords<'_>) -> Option<Problem> {
    if keywords.is(1, "type") {
        return None;
    }
    let is_literal =
        |&at: &usize| keywords.kind(at) == Some(TokenKind::Literal) && is_time(keywords.text(at));
    let at = (0..keywords.len()).find(is_literal)?;
    Some((
        keywords.offset(at)?,
        format!("{} becomes the time at which the statement runs", keywords.text(at)),
    ))
}

/// Returns whether a string is input that the server resolves to a time when it reads it (manual
/// section 8.5.1.4), perhaps with a time of day: `'now'`, `'today 12:00'`.
fn is_time(literal: &str) -> bool {
    let Some((_, text)) = literal.split_once('\'').filter(|_| !literal.starts_with('$')) else {
        return false;
    };
    let mut words = text.trim_end_matches('\'').split_whitespace();
    let first = words.next().unwrap_or_default();
    ["now", "today", "tomorrow", "yesterday"].iter().any(|it| first.eq_ignore_ascii_case(it))
        && words.all(|word| word.starts_with(|letter: char| letter.is_ascii_digit()))
}

//! The words that libpq knows, and what becomes of each here.

/// One connection word (libpq's `PQconninfoOptions` table, manual sections 34.1.2 and 34.15).
#[derive(Debug)]
pub(super) struct Keyword {
    /// The word in URLs and `key=value` text.
    pub(super) name: &'static str,
    /// The environment variable that fills it.
    pub(super) variable: Option<&'static str>,
    /// What pricesync does with it.
    pub(super) treatment: Treatment,
}

/// What pricesync does with a word.
#[derive(Debug)]
pub(super) enum Treatment {
    /// It shapes the connection.
    Honoured,
    /// It has no meaning for this driver and promises nothing that could be broken.
    Ignored,
    /// It promises something that would be broken if it were ignored.
    Refused {
        /// Values that ask for nothing.
        harmless: &'static [&'static str],
        /// Why it is refused.
        why: &'static str,
    },
}

use Treatment::{Honoured, Ignored, Refused};

const fn word(name: &'static str, variable: Option<&'static str>, treatment: Treatment) -> Keyword {
    Keyword {
        name,
        variable,
        treatment,
    }
}

/// Every word of libpq 13 to 18.
pub(super) static KEYWORDS: &[Keyword] = &[
    word("service", Some("PGSERVICE"), Honoured),
    word("servicefile", Some("PGSERVICEFILE"), Honoured),
    word("user", Some("PGUSER"), Honoured),
    word("password", Some("PGPASSWORD"), Honoured),
    word("passfile", Some("PGPASSFILE"), Honoured),
    word("channel_binding", Some("PGCHANNELBINDING"), Honoured),
    word("connect_timeout", Some("PGCONNECT_TIMEOUT"), Honoured),
    word("dbname", Some("PGDATABASE"), Honoured),
    word("host", Some("PGHOST"), Honoured),
    word("hostaddr", Some("PGHOSTADDR"), Honoured),
    word("port", Some("PGPORT"), Honoured),
    word("client_encoding", Some("PGCLIENTENCODING"), Honoured),
    word("options", Some("PGOPTIONS"), Honoured),
    word("application_name", Some("PGAPPNAME"), Honoured),
    word("fallback_application_name", None, Honoured),
    word("keepalives", None, Honoured),
    word("keepalives_idle", None, Honoured),
    word("keepalives_interval", None, Honoured),
    word("keepalives_count", None, Honoured),
    word("tcp_user_timeout", None, Honoured),
    word("sslmode", Some("PGSSLMODE"), Honoured),
    word("sslnegotiation", Some("PGSSLNEGOTIATION"), Honoured),
    word("sslcompression", Some("PGSSLCOMPRESSION"), Ignored),
    word("sslcert", Some("PGSSLCERT"), Honoured),
    word("sslkey", Some("PGSSLKEY"), Honoured),
    word("sslcertmode", Some("PGSSLCERTMODE"), Honoured),
    // libpq ignores it too when the key is not encrypted; encrypted keys are refused by `tls`.
    word("sslpassword", None, Ignored),
    word("sslrootcert", Some("PGSSLROOTCERT"), Honoured),
    word(
        "sslcrl",
        Some("PGSSLCRL"),
        Refused {
            harmless: &[""],
            why: "certificate revocation lists are not supported",
        },
    ),
    word(
        "sslcrldir",
        Some("PGSSLCRLDIR"),
        Refused {
            harmless: &[""],
            why: "certificate revocation lists are not supported",
        },
    ),
    word("sslsni", Some("PGSSLSNI"), Honoured),
    word(
        "sslkeylogfile",
        None,
        Refused {
            harmless: &[""],
            why: "TLS secrets are not written to a file",
        },
    ),
    word(
        "ssl_min_protocol_version",
        Some("PGSSLMINPROTOCOLVERSION"),
        Honoured,
    ),
    word(
        "ssl_max_protocol_version",
        Some("PGSSLMAXPROTOCOLVERSION"),
        Honoured,
    ),
    word(
        "requirepeer",
        Some("PGREQUIREPEER"),
        Refused {
            harmless: &[""],
            why: "the owner of the server's socket is not checked",
        },
    ),
    word(
        "require_auth",
        Some("PGREQUIREAUTH"),
        Refused {
            harmless: &[""],
            why: "login methods cannot be restricted; channel_binding=require insists on SCRAM",
        },
    ),
    word(
        "gssencmode",
        Some("PGGSSENCMODE"),
        Refused {
            harmless: &["disable", "prefer"],
            why: "GSSAPI encryption is not supported; use TLS (sslmode)",
        },
    ),
    word("krbsrvname", Some("PGKRBSRVNAME"), Ignored),
    word("gsslib", Some("PGGSSLIB"), Ignored),
    word("gssdelegation", Some("PGGSSDELEGATION"), Ignored),
    word(
        "replication",
        None,
        Refused {
            harmless: &["", "false", "off", "no", "0"],
            why: "migrations do not run on a replication connection",
        },
    ),
    word(
        "target_session_attrs",
        Some("PGTARGETSESSIONATTRS"),
        Honoured,
    ),
    word("load_balance_hosts", Some("PGLOADBALANCEHOSTS"), Honoured),
    word(
        "min_protocol_version",
        Some("PGMINPROTOCOLVERSION"),
        Refused {
            harmless: &["", "3.0"],
            why: "the driver speaks protocol 3.0",
        },
    ),
    word(
        "max_protocol_version",
        Some("PGMAXPROTOCOLVERSION"),
        Ignored,
    ),
    word(
        "scram_client_key",
        None,
        Refused {
            harmless: &[""],
            why: NO_KEY_LOGIN,
        },
    ),
    word(
        "scram_server_key",
        None,
        Refused {
            harmless: &[""],
            why: NO_KEY_LOGIN,
        },
    ),
    word(
        "oauth_issuer",
        None,
        Refused {
            harmless: &[""],
            why: NO_OAUTH,
        },
    ),
    word(
        "oauth_client_id",
        None,
        Refused {
            harmless: &[""],
            why: NO_OAUTH,
        },
    ),
    word(
        "oauth_client_secret",
        None,
        Refused {
            harmless: &[""],
            why: NO_OAUTH,
        },
    ),
    word(
        "oauth_scope",
        None,
        Refused {
            harmless: &[""],
            why: NO_OAUTH,
        },
    ),
];

const NO_KEY_LOGIN: &str = "login with SCRAM keys is not supported; use a password";
const NO_OAUTH: &str = "login with OAuth is not supported";

/// Words of other tools that people write where libpq has another one.
const NICKNAMES: &[(&str, &str)] = &[
    ("database", "dbname"),
    ("db", "dbname"),
    ("username", "user"),
    ("pass", "password"),
    ("pwd", "password"),
    ("hostname", "host"),
    ("server", "host"),
    ("ssl", "sslmode"),
    ("timeout", "connect_timeout"),
    ("keepalives_retries", "keepalives_count"),
];

/// Returns the word of that exact name; libpq does not fold case either.
pub(super) fn find(name: &str) -> Option<&'static Keyword> {
    KEYWORDS.iter().find(|keyword| keyword.name == name)
}

/// Returns the known word that was probably meant, if one is near enough.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let folded = name.to_lowercase();
    if let Some((_, meant)) = NICKNAMES.iter().find(|(nick, _)| *nick == folded) {
        return Some(meant);
    }
    KEYWORDS
        .iter()
        .map(|keyword| (distance(&folded, keyword.name), keyword.name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .map(|(_, name)| name)
}

/// Counts the single-character edits between two texts (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, to) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_is_answered_with_the_nearest_one() {
        for (written, meant) in [
            ("hots", "host"),
            ("sslmod", "sslmode"),
            ("passwrod", "password"),
            ("USER", "user"),
            ("database", "dbname"),
            ("sslrootcrt", "sslrootcert"),
        ] {
            assert_eq!(nearest(written), Some(meant), "{written}");
        }
        assert_eq!(nearest("completely_else"), None);
    }

    #[test]
    fn every_word_and_variable_appears_once() {
        for (index, keyword) in KEYWORDS.iter().enumerate() {
            for other in &KEYWORDS[index + 1..] {
                assert_ne!(keyword.name, other.name);
                assert!(keyword.variable.is_none() || keyword.variable != other.variable);
            }
        }
    }
}

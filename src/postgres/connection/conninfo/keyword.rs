//! The parameters of libpq, and how each is treated.

use super::error::ConnInfoError;

/// A connection parameter (libpq's `PQconninfoOptions` table, manual sections 34.1.2 and 34.15).
#[derive(Debug)]
pub(super) struct Keyword {
    /// The name in connection strings.
    pub(super) name: &'static str,
    /// The environment variable that sets it.
    pub(super) variable: Option<&'static str>,
    /// How pricesync treats it.
    pub(super) treatment: Treatment,
}

/// How pricesync treats a parameter.
#[derive(Debug)]
pub(super) enum Treatment {
    /// It is applied.
    Honoured,
    /// It has no effect in this driver, and ignoring it is safe.
    Ignored,
    /// It is not supported, and ignoring it would be unsafe.
    Refused {
        /// Values that request nothing.
        harmless: &'static [&'static str],
        /// The reason.
        why: &'static str,
    },
}

use Treatment::{Honoured, Ignored, Refused};

const fn parameter(
    name: &'static str,
    variable: Option<&'static str>,
    treatment: Treatment,
) -> Keyword {
    Keyword { name, variable, treatment }
}

/// A parameter that is refused unless it is empty.
const fn refused(name: &'static str, variable: Option<&'static str>, why: &'static str) -> Keyword {
    let harmless = &[""];
    parameter(name, variable, Refused { harmless, why })
}

/// Every parameter of libpq 13 to 18.
pub(super) static KEYWORDS: &[Keyword] = &[
    parameter("service", Some("PGSERVICE"), Honoured),
    parameter("servicefile", Some("PGSERVICEFILE"), Honoured),
    parameter("user", Some("PGUSER"), Honoured),
    parameter("password", Some("PGPASSWORD"), Honoured),
    parameter("passfile", Some("PGPASSFILE"), Honoured),
    parameter("channel_binding", Some("PGCHANNELBINDING"), Honoured),
    parameter("connect_timeout", Some("PGCONNECT_TIMEOUT"), Honoured),
    parameter("dbname", Some("PGDATABASE"), Honoured),
    parameter("host", Some("PGHOST"), Honoured),
    parameter("hostaddr", Some("PGHOSTADDR"), Honoured),
    parameter("port", Some("PGPORT"), Honoured),
    parameter("client_encoding", Some("PGCLIENTENCODING"), Honoured),
    parameter("options", Some("PGOPTIONS"), Honoured),
    parameter("application_name", Some("PGAPPNAME"), Honoured),
    parameter("fallback_application_name", None, Honoured),
    parameter("keepalives", None, Honoured),
    parameter("keepalives_idle", None, Honoured),
    parameter("keepalives_interval", None, Honoured),
    parameter("keepalives_count", None, Honoured),
    parameter("tcp_user_timeout", None, Honoured),
    parameter("sslmode", Some("PGSSLMODE"), Honoured),
    parameter("sslnegotiation", Some("PGSSLNEGOTIATION"), Honoured),
    parameter("sslcompression", Some("PGSSLCOMPRESSION"), Ignored),
    parameter("sslcert", Some("PGSSLCERT"), Honoured),
    parameter("sslkey", Some("PGSSLKEY"), Honoured),
    parameter("sslcertmode", Some("PGSSLCERTMODE"), Honoured),
    // libpq ignores it too when the key is not encrypted; encrypted keys are refused by `tls`.
    parameter("sslpassword", None, Ignored),
    parameter("sslrootcert", Some("PGSSLROOTCERT"), Honoured),
    refused("sslcrl", Some("PGSSLCRL"), "certificate revocation lists are not supported"),
    refused("sslcrldir", Some("PGSSLCRLDIR"), "certificate revocation lists are not supported"),
    parameter("sslsni", Some("PGSSLSNI"), Honoured),
    refused("sslkeylogfile", None, "TLS secrets are not written to a file"),
    parameter("ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION"), Honoured),
    parameter("ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION"), Honoured),
    refused(
        "requirepeer",
        Some("PGREQUIREPEER"),
        "the owner of the server's socket is not checked",
    ),
    refused(
        "require_auth",
        Some("PGREQUIREAUTH"),
        "login methods cannot be restricted; channel_binding=require insists on SCRAM",
    ),
    parameter(
        "gssencmode",
        Some("PGGSSENCMODE"),
        Refused {
            harmless: &["disable", "prefer"],
            why: "GSSAPI encryption is not supported; use TLS (sslmode)",
        },
    ),
    parameter("krbsrvname", Some("PGKRBSRVNAME"), Ignored),
    parameter("gsslib", Some("PGGSSLIB"), Ignored),
    parameter("gssdelegation", Some("PGGSSDELEGATION"), Ignored),
    parameter(
        "replication",
        None,
        Refused {
            harmless: &["", "false", "off", "no", "0"],
            why: "migrations do not run on a replication connection",
        },
    ),
    parameter("target_session_attrs", Some("PGTARGETSESSIONATTRS"), Honoured),
    parameter("load_balance_hosts", Some("PGLOADBALANCEHOSTS"), Honoured),
    parameter(
        "min_protocol_version",
        Some("PGMINPROTOCOLVERSION"),
        Refused { harmless: &["", "3.0"], why: "the driver speaks protocol 3.0" },
    ),
    parameter("max_protocol_version", Some("PGMAXPROTOCOLVERSION"), Ignored),
    refused("scram_client_key", None, NO_KEY_LOGIN),
    refused("scram_server_key", None, NO_KEY_LOGIN),
    refused("oauth_issuer", None, NO_OAUTH),
    refused("oauth_client_id", None, NO_OAUTH),
    refused("oauth_client_secret", None, NO_OAUTH),
    refused("oauth_scope", None, NO_OAUTH),
];

const NO_KEY_LOGIN: &str = "login with SCRAM keys is not supported; use a password";
const NO_OAUTH: &str = "login with OAuth is not supported";

/// Names that users of other tools write, and libpq's names.
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

/// Returns the parameter of exactly this name; case matters, as in libpq.
pub(super) fn find(name: &str) -> Option<&'static Keyword> {
    KEYWORDS.iter().find(|keyword| keyword.name == name)
}

/// Returns the error for a name that is not a parameter's.
pub(super) fn unknown(name: String) -> ConnInfoError {
    ConnInfoError::UnknownParameter { nearest: nearest(&name), parameter: name }
}

/// Returns the most similar parameter, if one is similar enough.
fn nearest(name: &str) -> Option<&'static str> {
    let folded = name.to_lowercase();
    if let Some((_, meant)) = NICKNAMES.iter().find(|(nick, _)| *nick == folded) {
        return Some(meant);
    }
    KEYWORDS
        .iter()
        .map(|keyword| (strsim::levenshtein(&folded, keyword.name), keyword.name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .map(|(_, name)| name)
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

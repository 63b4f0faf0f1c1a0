//! `postgresql://user:password@host:port/database?parameter=value` (manual section 34.1.1.2).

use super::error::ConnInfoError;
use super::foreign;
use super::keyword;
use super::parameters::{Origin, Parameters};

/// Results of parsing a URL besides libpq's parameters.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    /// Warnings about ignored parameters of other tools.
    pub(super) warnings: Vec<String>,
    /// Whether there is `pgbouncer=true`.
    pub(super) pooled: bool,
}

/// Returns the part after `postgresql://` or `postgres://`, or `None` for another string.
///
/// A URL with another scheme is an error that names the scheme.
pub(super) fn strip_scheme(text: &str) -> Result<Option<&str>, ConnInfoError> {
    for scheme in ["postgresql://", "postgres://"] {
        if let Some(rest) = text.strip_prefix(scheme) {
            return Ok(Some(rest));
        }
    }
    match text.split_once("://") {
        // Anything else before "://" is a value of a key=value text.
        Some((scheme, _))
            if scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+.-:".contains(c)) =>
        {
            Err(ConnInfoError::ForeignScheme { scheme: scheme.to_owned() })
        }
        _ => Ok(None),
    }
}

/// Parses the part of a URL after `://`.
///
/// As in libpq, the user name and password end at the first `@`. Unlike libpq, a URL with another `@` or
/// `/` that shows an unescaped password is rejected, because the password's second half would be looked
/// up as a host name and printed in errors.
pub(super) fn parse(rest: &str, parameters: &mut Parameters) -> Result<Remarks, ConnInfoError> {
    let (userinfo, rest) = match rest.find(['@', '/']) {
        Some(at) if rest[at..].starts_with('@') => (Some(&rest[..at]), &rest[at + 1..]),
        _ => (None, rest),
    };
    let (before_query, query) = match rest.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (rest, None),
    };
    let (authority, database) = match before_query.split_once('/') {
        Some((authority, database)) => (authority, Some(database)),
        None => (before_query, None),
    };

    let cut_in_half = match userinfo {
        Some(_) => before_query.contains('@'),
        None => authority.contains(':') && rest.contains('@') && before_query.contains('@'),
    };
    if cut_in_half {
        return Err(ConnInfoError::UnescapedSecret);
    }

    if let Some(userinfo) = userinfo {
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        store(parameters, "user", user)?;
        store(parameters, "password", password)?;
    }
    let (hosts, ports) = hosts(authority)?;
    store(parameters, "host", &hosts)?;
    store(parameters, "port", &ports)?;
    if let Some(database) = database {
        store(parameters, "dbname", database)?;
    }
    match query {
        Some(query) => read_query(query, parameters),
        None => Ok(Remarks::default()),
    }
}

/// Sets a parameter unless it is empty: `//:5432/` leaves the host to the other sources.
fn store(parameters: &mut Parameters, name: &'static str, raw: &str) -> Result<(), ConnInfoError> {
    if !raw.is_empty() {
        parameters.set(name, decode(raw, name)?, Origin::Text);
    }
    Ok(())
}

/// Splits `a:1,[::1]:2,c` into the lists `a,::1,c` and `1,2,`.
fn hosts(authority: &str) -> Result<(String, String), ConnInfoError> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for entry in authority.split(',') {
        let (host, port) = if let Some(bracketed) = entry.strip_prefix('[') {
            let (address, after) = bracketed
                .split_once(']')
                .ok_or(ConnInfoError::UrlSyntax("an IPv6 address has no closing ']'"))?;
            if address.is_empty() {
                return Err(ConnInfoError::UrlSyntax("an IPv6 address is empty"));
            }
            match after.strip_prefix(':') {
                Some(port) => (address, port),
                None if after.is_empty() => (address, ""),
                None => {
                    return Err(ConnInfoError::UrlSyntax(
                        "an IPv6 address is followed by something other than ':port'",
                    ));
                }
            }
        } else {
            entry.split_once(':').unwrap_or((entry, ""))
        };
        // Where '@host' is missing this is the password, so it is not quoted.
        if !port.is_empty() && !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(ConnInfoError::UrlPort);
        }
        hosts.push(host);
        ports.push(port);
    }
    Ok((hosts.join(","), ports.join(",")))
}

fn read_query(query: &str, parameters: &mut Parameters) -> Result<Remarks, ConnInfoError> {
    let mut remarks = Remarks::default();
    let mut rest = query;
    while !rest.is_empty() {
        let (pair, after) = rest.split_once('&').unwrap_or((rest, ""));
        rest = after;
        let (name, value) =
            pair.split_once('=').ok_or(ConnInfoError::UrlSyntax("a query parameter has no '='"))?;
        if value.contains('=') {
            return Err(ConnInfoError::UrlSyntax(
                "a query parameter has more than one '='; write %3D",
            ));
        }
        let name = decode(name, "query")?;
        let value = decode(value, "query")?;
        if name == "ssl" && value == "true" {
            parameters.set("sslmode", "require", Origin::Text);
        } else if let Some(keyword) = keyword::find(&name) {
            parameters.set(keyword.name, value, Origin::Text);
        } else if foreign::owns(&name) {
            if name == "sslaccept" && value == "strict" {
                return Err(ConnInfoError::Unsupported {
                    parameter: "sslaccept",
                    why: "it is a parameter of Prisma; use sslmode=verify-full",
                    origin: Origin::Text.to_string(),
                });
            }
            remarks.pooled |= name == "pgbouncer" && value == "true";
            remarks.warnings.push(format!(
                "ignored URL parameter '{}': it belongs to another tool",
                name.escape_debug()
            ));
        } else if query.contains('@') {
            // The password may contain an unescaped '?' or '&'.
            return Err(ConnInfoError::UnescapedSecret);
        } else {
            return Err(keyword::unknown(name));
        }
    }
    Ok(remarks)
}

/// Decodes percent-encoding; `+` is a plus sign, as in libpq.
fn decode(raw: &str, part: &'static str) -> Result<String, ConnInfoError> {
    let wrong = || ConnInfoError::PercentEncoding { part };
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || {
            let byte = bytes.next().ok_or_else(wrong)?;
            char::from(byte).to_digit(16).ok_or_else(wrong)
        };
        let value = digit()? * 16 + digit()?;
        match u8::try_from(value) {
            Ok(value) if value != 0 => decoded.push(value),
            _ => return Err(wrong()),
        }
    }
    String::from_utf8(decoded).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<(Parameters, Remarks), ConnInfoError> {
        let mut parameters = Parameters::default();
        let rest = strip_scheme(url)?.expect("a URL");
        let remarks = parse(rest, &mut parameters)?;
        Ok((parameters, remarks))
    }

    fn shown(url: &str) -> String {
        read(url)
            .map_or_else(|error| format!("error: {error}"), |(parameters, _)| parameters.shown(" "))
    }

    #[test]
    fn every_part_may_be_left_out() {
        for (url, parameters) in [
            ("postgresql://", ""),
            ("postgres:///db", "dbname=db"),
            ("postgresql://h", "host=h"),
            ("postgresql://h:1", "host=h port=1"),
            ("postgresql://:1", "port=1"),
            ("postgresql://u@", "user=u"),
            ("postgresql://u:@h", "user=u host=h"),
            ("postgresql://u:a:b@h/", "user=u password=a:b host=h"),
            ("postgresql://h?", "host=h"),
            ("postgresql://h?port=2&", "host=h port=2"),
            ("postgresql://h/db?x-a=1", "dbname=db host=h"),
        ] {
            assert_eq!(shown(url), parameters, "{url}");
        }
    }

    #[test]
    fn hosts_addresses_and_sockets_are_told_apart() {
        for (url, parameters) in [
            ("postgresql://a:1,b:2/d", "dbname=d host=a,b port=1,2"),
            ("postgresql://a,b/d", "dbname=d host=a,b port=,"),
            ("postgresql://[::1]:5/d", "dbname=d host=::1 port=5"),
            ("postgresql://%2Frun%2Fpg/d", "dbname=d host=/run/pg"),
            ("postgres://localhost/d?host=/sock&port=6000", "dbname=d host=/sock port=6000"),
            (
                "postgresql://[::1/d",
                "error: the URL is malformed: an IPv6 address has no closing ']'",
            ),
            ("postgresql://[]/d", "error: the URL is malformed: an IPv6 address is empty"),
        ] {
            assert_eq!(shown(url), parameters, "{url}");
        }
    }

    #[test]
    fn a_password_cut_in_half_is_refused_without_quoting_it() {
        for url in [
            "postgresql://u:hun@ter2@h/d",
            "postgresql://u:hun/ter2@h/d",
            "postgresql://u:hun/t@er2@h/d",
            "postgresql://u:hun@t/er2@h/d",
            "postgresql://u:12/ter2@h/d",
            "postgresql://u@srv:hunter2@h/d",
            "postgresql://u:hunter2/d",
            "postgresql://u:hunter2",
            "postgresql://u:hun?x/ter2@h/d",
            "postgresql://u:hun@t?er2=1@h/d",
            "postgresql://u:hun%ter2@h/d",
            "postgresql://u:hun@[ter2/d",
        ] {
            let error = read(url).map(|_| ()).expect_err(url);
            let said = format!("{error} {error:?} {:?}", error.hint());
            assert!(!said.contains("hun") && !said.contains("er2"), "{url}: {said}");
        }
        let unescaped = read("postgresql://u:p@ss@h/d").map(|_| ()).expect_err("cut");
        assert!(unescaped.hint().expect("a hint").starts_with("percent-encode"));
    }

    #[test]
    fn characters_that_cut_nothing_need_no_escape() {
        assert_eq!(shown("postgresql://u:p#s?s@h"), "user=u password=p#s?s host=h");
        assert_eq!(shown("postgresql://h/d@x"), "dbname=d@x host=h");
    }

    #[test]
    fn parameters_of_other_tools_are_skipped_with_a_warning() {
        let (_, remarks) =
            read("postgresql://h/d?schema=public&pgbouncer=true&sslmode=require").expect("skipped");
        assert_eq!(remarks.warnings.len(), 2);
        assert!(remarks.pooled);
        assert!(remarks.warnings[0].contains("'schema'"), "{:?}", remarks.warnings);
    }

    #[test]
    fn unknown_parameters_and_schemes_are_errors_with_a_way_out() {
        let error = read("postgresql://h/d?sslmod=require").map(|_| ()).expect_err("unknown");
        assert_eq!(error.hint().as_deref(), Some("did you mean 'sslmode'?"));
        let error = strip_scheme("postgresql+psycopg2://u:p@h/d").expect_err("a driver");
        assert_eq!(
            error.hint().as_deref(),
            Some("drop the driver's name '+psycopg2': postgresql://...")
        );
        assert!(strip_scheme("mysql://u:p@h/d").is_err());
        assert!(matches!(strip_scheme("password=a://b"), Ok(None)));
        assert!(shown("postgresql://h?a").starts_with("error: the URL is malformed"));
        assert!(shown("postgresql://h?user=a=b").starts_with("error: the URL is malformed"));
    }
}

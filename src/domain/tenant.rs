//! A tenant: its row in the catalog, its slug and its hosts.

use std::fmt;

use serde::Serialize;

use super::schema_name::{MAX_IDENTIFIER_BYTES, NameError, SchemaName};

/// The short name of a tenant, unique in the catalog.
///
/// New slugs are made of `a-z`, `0-9`, `_` and `-` and start with a letter or a digit;
/// slugs that are in the catalog already are not checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Slug(String);

impl Slug {
    /// Returns the slug for a new tenant.
    ///
    /// # Errors
    ///
    /// [`NameError`] for the first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (name, bytes) = (text.escape_debug(), text.len());
        let Some(first) = text.chars().next() else {
            return Err(NameError::new("a slug may not be empty"));
        };
        if bytes > MAX_IDENTIFIER_BYTES {
            return Err(NameError::new(format!(
                "slug '{name}' has {bytes} bytes; at most {MAX_IDENTIFIER_BYTES} fit"
            )));
        }
        let allowed = |c: &char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
        let bad = text.chars().find(|c| !allowed(c));
        if let Some(bad) = bad.or_else(|| matches!(first, '_' | '-').then_some(first)) {
            return Err(NameError::new(format!(
                "slug '{name}' may not hold '{}' there: use a-z, 0-9, '_' and '-', a letter or digit first",
                bad.escape_debug()
            )));
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns a slug of the catalog, unchecked.
    pub fn from_catalog(text: String) -> Self {
        Self(text)
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the schema of a new tenant: the configured prefix, then the slug.
    ///
    /// # Errors
    ///
    /// [`NameError`], chiefly when prefix and slug together exceed 63 bytes.
    pub fn schema(&self, prefix: &str) -> Result<SchemaName, NameError> {
        SchemaName::parse(&format!("{prefix}{}", self.0))
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host name as requests are matched against it: lower case, no port, no final dot, and in
/// ASCII, as browsers send names outside of it (UTS 46: `công-ty.vn` is `xn--cng-ty-ixa.vn`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Hostname(String);

/// The steps from a host to its normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSteps {
    /// Without the port.
    pub without_port: String,
    /// Without the dot at its end.
    pub without_dot: String,
    /// In lower case.
    pub lower: String,
    /// In ASCII: the form that is compared with the catalog.
    pub host: Hostname,
}

impl HostSteps {
    /// Returns the steps for a host, given with or without a port.
    ///
    /// # Errors
    ///
    /// [`NameError`] for the first rule that the text breaks.
    pub fn of(text: &str) -> Result<Self, NameError> {
        let invalid =
            |host: &str, why: &str| NameError::new(format!("host '{}' {why}", host.escape_debug()));
        let character = |host: &str, bad: char| {
            invalid(host, &format!("may not hold '{}'", bad.escape_debug()))
        };
        let parts = "has an empty part or one longer than 63 bytes";
        let long = "is longer than 253 characters";
        let without_port = match text.rsplit_once(':') {
            // `parse` accepts a sign.
            Some((host, port)) if !port.starts_with('+') && port.parse::<u16>().is_ok() => host,
            Some(_) => return Err(invalid(text, "has an invalid port")),
            None => text,
        };
        let without_dot = without_port.strip_suffix('.').unwrap_or(without_port);
        let lower = without_dot.to_lowercase();
        if lower.is_empty() {
            return Err(NameError::new("a host name may not be empty"));
        }
        let visible = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.') || is_mark(*c);
        if let Some(bad) = lower.chars().find(|c| !visible(c)) {
            return Err(character(&lower, bad));
        }
        // The conversion is slow for a long text.
        if lower.chars().count() > MAX_HOST {
            return Err(invalid(&lower, long));
        }
        let Ok(ascii) = idna::domain_to_ascii(&lower) else {
            return Err(if lower.split('.').any(str::is_empty) {
                invalid(&lower, parts)
            } else {
                let host = lower.escape_debug();
                NameError::new(format!(
                    "invalid internationalized host '{host}': IDNA has no ASCII form of it"
                ))
            });
        };
        if ascii.len() > MAX_HOST {
            return Err(invalid(&lower, long));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if let Some(bad) = ascii.chars().find(|&c| !allowed(c)) {
            return Err(character(&ascii, bad));
        }
        // `¼` is a number that IDNA writes as `1⁄4`, whose slash is not the one that is typed.
        let (unicode, _) = idna::domain_to_unicode(&ascii);
        if let Some(bad) = unicode.chars().find(|c| !visible(c)) {
            return Err(character(&unicode, bad));
        }
        if ascii.split('.').any(|label| label.is_empty() || label.len() > 63) {
            return Err(invalid(&lower, parts));
        }
        Ok(Self {
            without_port: without_port.to_owned(),
            without_dot: without_dot.to_owned(),
            host: Hostname(ascii),
            lower,
        })
    }
}

/// The maximum length in DNS and in the catalog's column.
const MAX_HOST: usize = 253;

impl Hostname {
    /// Returns the normal form of a host, given with or without a port.
    ///
    /// # Errors
    ///
    /// [`NameError`] for the first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        HostSteps::of(text).map(|steps| steps.host)
    }

    /// Returns a host of the catalog, unchecked.
    pub fn from_catalog(text: String) -> Self {
        Self(text)
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the Unicode form, if it differs: `công-ty.vn`.
    pub fn unicode(&self) -> Option<String> {
        let (unicode, valid) = idna::domain_to_unicode(&self.0);
        (valid.is_ok() && unicode != self.0).then_some(unicode)
    }
}

/// Combining marks are not alphanumeric, yet decomposed Vietnamese is made of them.
fn is_mark(c: char) -> bool {
    ('\u{300}'..='\u{36f}').contains(&c)
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The primary key of a tenant's row, of any type, as the text that the server writes. SQL compares it
/// as a literal without a type, which the server reads as the column's type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(String);

impl TenantId {
    /// Returns the id with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tenant of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Primary key in the tenant table.
    pub id: TenantId,
    /// The display name, such as `Acme Inc.`.
    pub name: String,
    /// The short name.
    pub slug: Slug,
    /// The schema of its tables: stored in the row, never derived from the slug.
    pub schema: SchemaName,
    /// Its host names, the primary one first.
    pub hostnames: Vec<Hostname>,
    /// When the row was created, in the server's text form; `None` without such a column.
    pub created_at: Option<String>,
}

/// A tenant to create: a [`Tenant`] without the values that the server generates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTenant {
    /// The display name.
    pub name: String,
    /// The short name.
    pub slug: Slug,
    /// The schema to create.
    pub schema: SchemaName,
    /// Host names; the first becomes the primary one.
    pub hostnames: Vec<Hostname>,
    /// Values of further columns by name, as texts that the server parses.
    pub columns: Vec<(String, String)>,
}

/// A row of the tenant table whose schema name is not usable, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    /// Primary key of the row; empty if it is NULL.
    pub id: TenantId,
    /// Its slug, as stored.
    pub slug: String,
    /// Its schema name, as stored.
    pub schema: String,
    /// The rule that the schema name breaks.
    pub reason: NameError,
}

/// The contents of the tenant table, ordered by slug.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantList {
    /// The tenants.
    pub tenants: Vec<Tenant>,
    /// Rows whose schema name is not usable. The row of `public` itself, which
    /// django-tenants keeps, is in neither list.
    pub refused: Vec<RefusedRow>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_slug_is_lower_case_ascii() {
        assert_eq!(Slug::parse("acme-copy_2").expect("fine").as_str(), "acme-copy_2");
        assert!(Slug::parse("3").is_ok());
        for bad in ["", "Acme", "công-ty", "a b", "a'b", "_a", "-a", "a\"b", "a.b"] {
            assert!(Slug::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_schema_is_prefix_and_slug_and_must_fit() {
        let slug = Slug::parse("acme").expect("fine");
        assert_eq!(slug.schema("tenant_").expect("fits").as_str(), "tenant_acme");
        let long = Slug::parse(&"a".repeat(57)).expect("fits alone");
        assert!(long.schema("tenant_").is_err());
    }

    #[test]
    fn hosts_are_compared_in_lower_case_without_port_and_final_dot() {
        let host = |text| Hostname::parse(text).map(|h| h.as_str().to_owned());
        assert_eq!(host("ACME.example.com:8000").as_deref(), Ok("acme.example.com"));
        assert_eq!(host("acme.example.com.").as_deref(), Ok("acme.example.com"));
        for text in ["CÔNG-TY.vn", "Co\u{302}ng-Ty.vn.", "xn--cng-ty-ixa.VN:80"] {
            assert_eq!(host(text).as_deref(), Ok("xn--cng-ty-ixa.vn"), "{text}");
        }
        assert_eq!(
            Hostname::parse("CÔNG-TY.vn").expect("fine").unicode().as_deref(),
            Some("công-ty.vn")
        );
        for bad in
            ["", ":80", "a b.com", "a/b", "a..b", ".a", "a:b", "a:+80", "x'y", "a／b", "xn--ls8h0"]
        {
            assert!(host(bad).is_err(), "{bad:?}");
        }
    }
}

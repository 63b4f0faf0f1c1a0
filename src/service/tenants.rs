//! Which tenants a person means.

use std::sync::Arc;

use globset::{Glob, GlobMatcher};

use super::event::Target;
use crate::domain::script::Scope;
use crate::domain::tenant::{CatalogError, Hostname, Tenant, TenantList};

/// What was typed behind `--tenant` and `--exclude`.
///
/// A word names a tenant by slug, schema or host, always exactly; a word with `*`, `?`,
/// `[` or `{` is a glob over the same three. Never an index, never a prefix.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Words that choose; none at all chooses every tenant.
    pub include: Vec<String>,
    /// Words that take away again.
    pub exclude: Vec<String>,
}

/// Why a selection cannot be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum SelectionError {
    /// These words name no tenant; with each the slugs that look most like it.
    Unknown(Vec<(String, Vec<String>)>),
    /// This word is not a glob.
    BadGlob(String, String),
}

impl std::fmt::Display for SelectionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown(words) => {
                let words: Vec<String> =
                    words.iter().map(|(word, _)| format!("'{word}'")).collect();
                write!(
                    f,
                    "no tenant has the slug, schema or host {}",
                    words.join(", ")
                )
            }
            Self::BadGlob(word, why) => write!(f, "'{word}' is not a glob: {why}"),
        }
    }
}

impl std::error::Error for SelectionError {}

enum Word {
    Exact(String, Option<Hostname>),
    Glob(GlobMatcher),
}

impl Word {
    fn parse(text: &str) -> Result<Self, SelectionError> {
        if text.contains(['*', '?', '[', '{']) {
            let glob = Glob::new(text).map_err(|error| {
                SelectionError::BadGlob(text.to_owned(), error.kind().to_string())
            })?;
            return Ok(Self::Glob(glob.compile_matcher()));
        }
        Ok(Self::Exact(text.to_owned(), Hostname::parse(text).ok()))
    }

    fn matches(&self, tenant: &Tenant) -> bool {
        match self {
            Self::Exact(text, host) => {
                tenant.slug.as_str() == text
                    || tenant.schema.as_str() == text
                    || host
                        .as_ref()
                        .is_some_and(|host| tenant.hostnames.contains(host))
            }
            Self::Glob(glob) => {
                glob.is_match(tenant.slug.as_str())
                    || glob.is_match(tenant.schema.as_str())
                    || tenant
                        .hostnames
                        .iter()
                        .any(|host| glob.is_match(host.as_str()))
            }
        }
    }
}

impl Selection {
    /// Returns whether every tenant is meant.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Returns the tenants that are meant, in the order of the catalog.
    ///
    /// # Errors
    ///
    /// A word that chooses nothing is an error, a glob too: a script that names a tenant
    /// must not succeed without it.
    pub fn choose(&self, tenants: Vec<Tenant>) -> Result<Vec<Tenant>, SelectionError> {
        let parse = |words: &[String]| {
            words
                .iter()
                .map(|word| Word::parse(word))
                .collect::<Result<Vec<_>, _>>()
        };
        let (include, exclude) = (parse(&self.include)?, parse(&self.exclude)?);
        let mut used = vec![false; include.len()];
        let mut chosen = Vec::new();
        let mut slugs = Vec::new();
        for tenant in tenants {
            let mut wanted = include.is_empty();
            for (word, used) in include.iter().zip(&mut used) {
                if word.matches(&tenant) {
                    *used = true;
                    wanted = true;
                }
            }
            if !include.is_empty() {
                slugs.push(tenant.slug.as_str().to_owned());
            }
            if wanted && !exclude.iter().any(|word| word.matches(&tenant)) {
                chosen.push(tenant);
            }
        }
        let unknown: Vec<(String, Vec<String>)> = self
            .include
            .iter()
            .zip(used)
            .filter(|(_, used)| !used)
            .map(|(word, _)| (word.clone(), nearest(word, &slugs)))
            .collect();
        if unknown.is_empty() {
            Ok(chosen)
        } else {
            Err(SelectionError::Unknown(unknown))
        }
    }
}

/// Returns at most three slugs that look like `word`, the likest first.
#[must_use]
pub fn nearest(word: &str, slugs: &[String]) -> Vec<String> {
    let mut likely: Vec<(f64, &String)> = slugs
        .iter()
        .map(|slug| (strsim::jaro_winkler(slug, word), slug))
        .filter(|(likeness, _)| *likeness > 0.8)
        .collect();
    likely.sort_by(|a, b| b.0.total_cmp(&a.0));
    likely
        .into_iter()
        .take(3)
        .map(|(_, slug)| slug.clone())
        .collect()
}

/// Returns the tenant that one word names, exactly.
///
/// # Errors
///
/// [`CatalogError::NotFound`] when there is none.
pub fn find(word: &str, list: TenantList) -> Result<Tenant, CatalogError> {
    let exact = Word::Exact(word.to_owned(), Hostname::parse(word).ok());
    list.tenants
        .into_iter()
        .find(|tenant| exact.matches(tenant))
        .ok_or_else(|| CatalogError::NotFound(word.to_owned()))
}

/// Returns what a run works on for a tenant.
#[must_use]
pub fn target(tenant: &Tenant) -> Arc<Target> {
    Arc::new(Target {
        schema: tenant.schema.clone(),
        label: tenant.slug.as_str().to_owned(),
        scope: Scope::Tenant,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::schema_name::SchemaName;
    use crate::domain::tenant::Slug;

    pub(crate) fn tenant(id: i64, slug: &str) -> Tenant {
        Tenant {
            id,
            name: slug.to_owned(),
            slug: Slug::from_catalog(slug.to_owned()),
            schema: SchemaName::parse(&format!("tenant_{slug}")).expect("legal"),
            hostnames: vec![Hostname::from_catalog(format!("{slug}.example.com"))],
            created_at: None,
        }
    }

    fn choose(include: &[&str], exclude: &[&str]) -> Result<Vec<String>, String> {
        let selection = Selection {
            include: include.iter().map(|&word| word.to_owned()).collect(),
            exclude: exclude.iter().map(|&word| word.to_owned()).collect(),
        };
        let tenants = ["acme", "acme2", "globex", "3"];
        let tenants = (1..)
            .zip(tenants)
            .map(|(id, slug)| tenant(id, slug))
            .collect();
        selection
            .choose(tenants)
            .map(|chosen| chosen.iter().map(|t| t.slug.to_string()).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_tenant_is_named_by_slug_schema_or_host() {
        for word in [
            "acme",
            "tenant_acme",
            "acme.example.com",
            "ACME.example.com:8000",
        ] {
            assert_eq!(choose(&[word], &[]), Ok(vec!["acme".to_owned()]), "{word}");
        }
    }

    #[test]
    fn a_number_is_a_slug_and_never_an_index() {
        assert_eq!(choose(&["3"], &[]), Ok(vec!["3".to_owned()]));
        assert_eq!(
            choose(&["1"], &[]),
            Err("no tenant has the slug, schema or host '1'".to_owned())
        );
    }

    #[test]
    fn globs_choose_and_exclude_takes_away() {
        assert_eq!(choose(&["acme*"], &["acme2"]), Ok(vec!["acme".to_owned()]));
        assert_eq!(
            choose(&[], &["tenant_a*", "3"]),
            Ok(vec!["globex".to_owned()])
        );
    }

    #[test]
    fn every_word_must_name_something() {
        assert_eq!(
            choose(&["acme", "initech", "x*"], &[]),
            Err("no tenant has the slug, schema or host 'initech', 'x*'".to_owned())
        );
        assert!(choose(&["acm"], &[]).is_err(), "a prefix is not a name");
    }

    #[test]
    fn a_typing_error_is_answered_with_the_nearest_slugs() {
        let slugs = ["acme", "globex"].map(str::to_owned);
        assert_eq!(nearest("acmee", &slugs), ["acme"]);
        assert!(nearest("zzz", &slugs).is_empty());
    }
}

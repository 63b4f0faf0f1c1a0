//! The schema that a job works on.

use super::schema_name::SchemaName;
use super::script::Scope;

/// One schema that a run works on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The schema.
    pub schema: SchemaName,
    /// The tenant's slug, or `public`.
    pub label: String,
    /// Which set it gets.
    pub scope: Scope,
}

impl Target {
    /// Returns the target for the shared tables.
    pub fn public() -> Self {
        Self { schema: SchemaName::public(), label: "public".to_owned(), scope: Scope::Shared }
    }

    /// Returns the option that selects exactly these schemas: `--tenant=a,b`, or `--shared`
    /// for `public` alone.
    pub fn option<'a>(targets: impl Iterator<Item = &'a Self>) -> String {
        let labels: Vec<&str> = targets
            .filter(|target| target.scope == Scope::Tenant)
            .map(|target| target.label.as_str())
            .collect();
        if labels.is_empty() {
            return "--shared".to_owned();
        }
        let list = labels.join(",");
        let plain = |c: char| c.is_alphanumeric() || "_-.,@".contains(c);
        if list.chars().all(plain) {
            format!("--tenant={list}")
        } else {
            // Slugs of an adopted database may contain blanks.
            format!("--tenant='{}'", list.replace('\'', r"'\''"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_that_selects_targets_can_be_pasted_into_a_shell() {
        let named = |label: &str| Target {
            schema: SchemaName::parse("x").expect("legal"),
            label: label.to_owned(),
            scope: Scope::Tenant,
        };
        let (acme, odd) = (named("acme"), named("it's; rm"));
        assert_eq!(Target::option([&acme, &odd].into_iter()), r"--tenant='acme,it'\''s; rm'");
        assert_eq!(Target::option([&Target::public()].into_iter()), "--shared");
    }
}

//! Puts values into SQL that is kept in files of its own.

/// Replaces each name with its value, in one pass: values are not searched for names.
pub(crate) fn filled(sql: &str, values: &[(&str, String)]) -> String {
    let mut rest = sql;
    let mut result = String::with_capacity(sql.len());
    let next = |text: &str| {
        values.iter().filter_map(|(name, value)| Some((text.find(name)?, name.len(), value))).min()
    };
    while let Some((at, length, value)) = next(rest) {
        result.push_str(&rest[..at]);
        result.push_str(value);
        rest = &rest[at + length..];
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_searched_for_names() {
        let values =
            [("{schema}", "'{history}'".to_owned()), ("{history}", "'{schema}'".to_owned())];
        assert_eq!(
            filled("{schema} is not {history}{schema}", &values),
            "'{history}' is not '{schema}''{history}'"
        );
    }
}

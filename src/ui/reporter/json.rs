//! JSON for programs: events and the summary of a run.

use std::io::{self, Write};
use std::time::Duration;

use serde::ser::{Error as _, SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::service::event::{Event, EventKind, Outcome};
use crate::service::summary::Summary;

use super::Reporter;
use crate::ui::error::explain::{explain, explain_group};
use crate::ui::json::encode;

/// The version of both formats. Fields are added, never changed or removed.
const VERSION: u8 = 1;

/// Writes one JSON object per line: every event, then `run-finished`.
#[derive(Debug)]
pub(in crate::ui) struct JsonReporter<W> {
    out: W,
}

impl<W: Write> JsonReporter<W> {
    pub(in crate::ui) fn new(out: W) -> Self {
        Self { out }
    }

    fn write(&mut self, object: &Map<String, Value>) -> io::Result<()> {
        let line = encode(object)? + "\n";
        self.out.write_all(line.as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write> Reporter for JsonReporter<W> {
    fn on(&mut self, event: &Event) -> io::Result<()> {
        let kind = fields(&event.kind)?;
        let mut object = head(event.elapsed);
        object.extend(kind.get_key_value("event").map(|(k, v)| (k.clone(), v.clone())));
        if let Some(target) = &event.target {
            object.extend(names(target));
        }
        object.extend(kind);
        if let (EventKind::SchemaFinished { outcome }, Some(target)) = (&event.kind, &event.target)
        {
            object.extend(message(outcome, target));
        }
        self.write(&object)
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        let mut object = head(summary.took);
        object.insert("event".into(), "run-finished".into());
        object.extend(totals(summary)?);
        self.write(&object)
    }
}

/// Returns the document of `migrate-schemas -o json`: counts, the outcome of each schema, and the
/// failures, grouped.
pub const fn summary_document(summary: &Summary) -> SummaryDocument<'_> {
    SummaryDocument(summary)
}

/// A run as one document, serialized as a stream: it may have fifty thousand schemas.
#[derive(Clone, Copy, Debug)]
pub struct SummaryDocument<'a>(&'a Summary);

impl Serialize for SummaryDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(summary) = self;
        let mut document = serializer.serialize_map(None)?;
        document.serialize_entry("v", &VERSION)?;
        for (key, value) in totals(summary).map_err(S::Error::custom)? {
            document.serialize_entry(&key, &value)?;
        }
        document.serialize_entry("schemas", &Schemas(summary))?;
        document.serialize_entry("failures", &failures(summary).map_err(S::Error::custom)?)?;
        document.end()
    }
}

struct Schemas<'a>(&'a Summary);

impl Serialize for Schemas<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut schemas = serializer.serialize_seq(Some(self.0.outcomes.len()))?;
        for item in &self.0.outcomes {
            let mut schema = names(&item.target);
            schema.extend(fields(&item.outcome).map_err(S::Error::custom)?);
            schema.extend(message(&item.outcome, &item.target));
            schemas.serialize_element(&schema)?;
        }
        schemas.end()
    }
}

fn failures(summary: &Summary) -> io::Result<Vec<Value>> {
    let mut failures = Vec::new();
    for group in summary.failure_groups() {
        let names: Vec<_> = group.targets.iter().map(|t| t.schema.as_str()).collect();
        failures.push(json!({
            "message": explain_group(&group).message(),
            "error": serde_json::to_value(group.error)?,
            "schemas": names,
        }));
    }
    for row in &summary.refused {
        failures.push(json!({
            "message": row.reason.to_string(),
            "tenant": row.slug,
            "schemas": [row.schema],
        }));
    }
    Ok(failures)
}

fn head(elapsed: Duration) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("v".into(), VERSION.into());
    object.insert("t".into(), seconds(elapsed));
    object
}

fn totals(summary: &Summary) -> io::Result<Map<String, Value>> {
    let mut object = Map::new();
    if !summary.work.is_migration() {
        object.insert("command".into(), summary.work.command.into());
    }
    object.extend(summary.run.map(|run| ("run".to_owned(), run.into())));
    object.insert("counts".into(), serde_json::to_value(summary.counts())?);
    object.insert("took".into(), seconds(summary.took));
    object.insert("interrupted".into(), serde_json::to_value(summary.interrupted)?);
    Ok(object)
}

fn names(target: &Target) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("schema".into(), target.schema.as_str().into());
    if target.scope == Scope::Tenant {
        object.insert("tenant".into(), target.label.as_str().into());
    }
    object
}

/// Returns the message of a failure, to accompany its data.
fn message(outcome: &Outcome, target: &Target) -> Option<(String, Value)> {
    match outcome {
        Outcome::Failed { error, applied } => {
            let message = explain(error, target, applied).message();
            Some(("message".to_owned(), message.into()))
        }
        _ => None,
    }
}

fn fields(value: &impl Serialize) -> io::Result<Map<String, Value>> {
    match serde_json::to_value(value)? {
        Value::Object(map) => Ok(map),
        other => Err(io::Error::other(format!("not an object: {other}"))),
    }
}

fn seconds(duration: Duration) -> Value {
    let millis = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    (f64::from(millis) / 1000.0).into()
}

#[cfg(test)]
mod tests {
    use snapbox::{IntoData, assert_data_eq, str};

    use super::*;
    use crate::ui::json::write_document;
    use crate::ui::test_support::*;

    fn written(events: &[Event], summary: &Summary) -> String {
        let mut lines = JsonReporter::new(Vec::new());
        report(&mut lines, events);
        lines.finish(summary).unwrap();
        String::from_utf8(lines.out).unwrap()
    }

    #[test]
    fn every_event_is_one_object_on_one_line() {
        let (public, acme) = (public(), tenant("acme"));
        let script = applied(8, "price_history_index", 1900);
        let events = [
            run_started(2, 2, 4),
            started(&public, 0, 1),
            of(&acme, EventKind::ScriptFinished { script: script.clone() }),
            finished(&acme, migrated(&[script])),
            finished(&acme, failed(missing_relation())),
        ];
        let summary = summary(vec![(&acme, failed(missing_relation()))]);
        assert_data_eq!(written(&events, &summary), str![[r#"
{"v":1,"t":41.207,"event":"run-started","schemas":2,"pending":2,"jobs":4}
{"v":1,"t":41.207,"event":"schema-started","schema":"public","number":0,"of":1}
{"v":1,"t":41.207,"event":"script-finished","schema":"tenant_acme","tenant":"acme","version":8,"name":"price_history_index","took":1.9}
{"v":1,"t":41.207,"event":"schema-finished","schema":"tenant_acme","tenant":"acme","outcome":"migrated","scripts":[{"version":8,"name":"price_history_index","took":1.9}],"took":0.03}
{"v":1,"t":41.207,"event":"schema-finished","schema":"tenant_acme","tenant":"acme","outcome":"failed","error":{"kind":"script","script":{"version":8,"name":"price_history_index"},"file":"migrations/tenant/prices/V8__price_history_index.sql","place":{"line":12,"column":17,"text":"create index on prices (product_id);"},"error":{"sqlstate":"42P01","message":"relation \"prices\" does not exist"},"blockers":[],"attempts":1,"rolled_back":true},"applied":[],"message":"V8__price_history_index failed at migrations/tenant/prices/V8__price_history_index.sql:12:17: relation \"prices\" does not exist (42P01)"}
{"v":1,"t":0.21,"event":"run-finished","counts":{"migrated":0,"up-to-date":0,"failed":1,"skipped":0,"not-started":0},"took":0.21,"interrupted":"none"}

"#]].raw());
    }

    #[test]
    fn nothing_in_a_line_can_act_on_a_terminal() {
        let acme = tenant("acme");
        let event = of(
            &acme,
            EventKind::Notice {
                severity: "NOTICE".into(),
                message: "a\u{1b}[2J\u{9b}2J\u{7f}\n\u{202e}ế".into(),
            },
        );
        let text = written(&[event], &Summary::default());
        let line = text.lines().next().unwrap();
        assert!(line.contains(r"a\u001b[2J\u009b2J\u007f\n\u202eế"), "{line}");
        let back: Value = serde_json::from_str(line).unwrap();
        assert_eq!(back["message"], "a\u{1b}[2J\u{9b}2J\u{7f}\n\u{202e}ế");
    }

    #[test]
    fn the_document_lists_each_schema_and_groups_failures() {
        let (acme, globex, initech) = (tenant("acme"), tenant("globex"), tenant("initech"));
        let summary = summary(vec![
            (&acme, migrated(&[applied(1, "products", 9)])),
            (&globex, failed(missing_relation())),
            (&initech, failed(missing_relation())),
        ]);
        let document = serde_json::to_value(summary_document(&summary)).unwrap();
        assert_eq!(document["counts"]["failed"], 2);
        assert_eq!(document["schemas"].as_array().unwrap().len(), 3);
        assert_eq!(document["schemas"][1]["error"]["kind"], "script");
        assert_eq!(document["failures"][0]["schemas"], json!(["tenant_globex", "tenant_initech"]));

        let mut out = Vec::new();
        write_document(&mut out, &summary_document(&summary)).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), document);
        assert!(out.ends_with(b"}\n"));

        let mut out = Vec::new();
        write_document(&mut out, &json!({"a": "\u{9b}2J ế\n"})).unwrap();
        assert_eq!(out, "{\n  \"a\": \"\\u009b2J ế\\n\"\n}\n".as_bytes());
    }
}

//! Spans as lines of JSON, as Go's test stubs of spans are written.

use std::time::Duration;

use proto::opentelemetry::proto::common::v1 as common;
use proto::opentelemetry::proto::trace::v1 as wire;
use serde::Serialize;
use serde_json::{Value, json};
use stdx::text::hex;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

fn context(trace: &[u8], span: &[u8]) -> Value {
    let padded = |bytes: &[u8], length: usize| format!("{:0>length$}", hex(bytes));
    json!({"TraceID": padded(trace, 32), "SpanID": padded(span, 16), "TraceFlags": "01", "TraceState": "", "Remote": false})
}

fn moment(nanos: u64) -> String {
    let at = OffsetDateTime::UNIX_EPOCH + Duration::from_nanos(nanos);
    at.format(&Rfc3339).unwrap_or_default()
}

#[expect(clippy::too_many_arguments, reason = "the parts of one message")]
pub(super) fn stub(
    name: &str,
    ids: (&[u8], &[u8], &[u8]),
    kind: i32,
    times: (u64, u64),
    lists: [Value; 3],
    status: Value,
    resource: &Value,
    scope: &Value,
) -> String {
    let (trace, id, parent) = ids;
    let [attributes, events, links] = lists;
    let root = parent.iter().all(|byte| *byte == 0);
    let stub = Stub {
        name,
        span_context: context(trace, id),
        parent: match root {
            true => context(&[], &[]),
            false => context(trace, parent),
        },
        span_kind: kind,
        start_time: moment(times.0),
        end_time: moment(times.1),
        attributes,
        events,
        links,
        status,
        dropped_attributes: 0,
        dropped_events: 0,
        dropped_links: 0,
        child_span_count: 0,
        resource,
        instrumentation_library: scope,
    };
    serde_json::to_string(&stub).expect("plain data always serialises")
}

/// A span as Go's test stubs of spans are written.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Stub<'a> {
    name: &'a str,
    span_context: Value,
    parent: Value,
    span_kind: i32,
    start_time: String,
    end_time: String,
    attributes: Value,
    events: Value,
    links: Value,
    status: Value,
    dropped_attributes: u32,
    dropped_events: u32,
    dropped_links: u32,
    child_span_count: u32,
    /// Both may be large, and the same for many.
    resource: &'a Value,
    instrumentation_library: &'a Value,
}

pub(super) fn attributes(list: &[common::KeyValue]) -> Value {
    list.iter()
        .map(|one| json!({"Key": one.key, "Value": value(one.value.as_ref())}))
        .collect()
}

fn value(value: Option<&common::AnyValue>) -> Value {
    use common::any_value::Value as Any;
    let text = |text: String| json!({"Type": "STRING", "Value": text});
    match value.and_then(|value| value.value.as_ref()) {
        None => text(String::new()),
        Some(Any::StringValue(value)) => text(value.clone()),
        Some(Any::BoolValue(value)) => json!({"Type": "BOOL", "Value": value}),
        Some(Any::IntValue(value)) => json!({"Type": "INT64", "Value": value}),
        Some(Any::DoubleValue(value)) => json!({"Type": "FLOAT64", "Value": value}),
        Some(Any::BytesValue(value)) => text(hex(value)),
        Some(Any::ArrayValue(list)) => {
            let texts: Option<Vec<&str>> = list
                .values
                .iter()
                .map(|one| match &one.value {
                    Some(Any::StringValue(text)) => Some(text.as_str()),
                    _ => None,
                })
                .collect();
            match texts {
                Some(texts) => json!({"Type": "STRINGSLICE", "Value": texts}),
                None => text(format!("{} values", list.values.len())),
            }
        }
        Some(Any::KvlistValue(list)) => text(format!("{} values", list.values.len())),
    }
}

pub(super) fn client_line(span: &wire::Span, resource: &Value, scope: &Value) -> String {
    let events = span.events.iter().map(|event| {
        json!({"Name": event.name, "Attributes": attributes(&event.attributes), "DroppedAttributeCount": event.dropped_attributes_count, "Time": moment(event.time_unix_nano)})
    });
    let links = span.links.iter().map(|link| {
        json!({"SpanContext": context(&link.trace_id, &link.span_id), "Attributes": attributes(&link.attributes), "DroppedAttributeCount": link.dropped_attributes_count})
    });
    let status = span.status.clone().unwrap_or_default();
    let code = ["Unset", "Ok", "Error"]
        .get(usize::try_from(status.code).unwrap_or(0))
        .unwrap_or(&"Unset");
    let ids = (
        &span.trace_id[..],
        &span.span_id[..],
        &span.parent_span_id[..],
    );
    let times = (span.start_time_unix_nano, span.end_time_unix_nano);
    let lists = [
        attributes(&span.attributes),
        events.collect(),
        links.collect(),
    ];
    let status = json!({"Code": code, "Description": status.message});
    stub(
        &span.name, ids, span.kind, times, lists, status, resource, scope,
    )
}

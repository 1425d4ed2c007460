//! Where clients send the spans of their traces (rows D29, D33), and how the spans of one
//! build are written down beside its record: one JSON object a line, as Go's test stubs of
//! spans are written, which is what clients read.

mod endpoint;
mod lines;
mod send;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use oci::Digest;
use progress::{Event, Progress};
use prost::Message as _;
use proto::opentelemetry::proto::collector::trace::v1 as collector;
use proto::opentelemetry::proto::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use proto::opentelemetry::proto::common::v1 as common;
use proto::opentelemetry::proto::trace::v1 as wire;
use serde_json::json;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::listen::{Listener, Socket};

/// What a stored trace is.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.buildkit.otlp.json.v0";

/// Traces kept for builds that may still be coming or have just ended.
const MAX_TRACES: usize = 64;
/// Bytes of spans kept for one trace, and for all of them.
const MAX_TRACE: usize = 4 << 20;
const MAX_ALL: usize = 32 << 20;

/// Numbers of the wire: a span that is no call, and one that failed.
const INTERNAL: i32 = 1;
const FAILED: i32 = 2;

/// The id of a trace.
pub(crate) type TraceId = [u8; 16];

/// Where a build hangs in a trace of its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    trace: TraceId,
    span: [u8; 8],
    sampled: bool,
    /// The header `tracestate`.
    state: String,
}

/// A state has 32 members at most, and programs need not take longer ones than this.
const MAX_STATE: usize = 512;

impl Parent {
    /// From the header `traceparent`: `00-<trace>-<span>-<flags>`. A build that has none
    /// gets a trace of its own, made of its id.
    pub(crate) fn of(metadata: &MetadataMap, id: &str) -> Parent {
        let header = |name| metadata.get(name).and_then(|header| header.to_str().ok());
        if let Some(mut parent) = header("traceparent").and_then(Parent::parse) {
            let state = header("tracestate").filter(|state| state.len() <= MAX_STATE);
            parent.state = state.unwrap_or_default().to_owned();
            return parent;
        }
        let mut trace = [0; 16];
        // A digest has more than enough digits.
        let _ = read_hex(&Digest::of(id).hex(), &mut trace);
        Parent {
            trace,
            span: [0; 8],
            sampled: true,
            state: String::new(),
        }
    }

    /// Where the steps are of a build that began then.
    pub(crate) fn steps(&self, began: SystemTime) -> progress::Trace {
        progress::Trace {
            id: self.trace,
            sampled: self.sampled,
            state: self.state.clone(),
            salt: format!("{began:?}"),
        }
    }

    fn parse(header: &str) -> Option<Parent> {
        let mut parts = header.split('-');
        let (_version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
        let whole = trace.len() == 32 && span.len() == 16;
        let mut flags = [0];
        read_hex(parts.next()?, &mut flags)?;
        let mut parent = Parent {
            trace: [0; 16],
            span: [0; 8],
            sampled: flags[0] & 1 == 1,
            state: String::new(),
        };
        read_hex(trace, &mut parent.trace).filter(|()| whole)?;
        read_hex(span, &mut parent.span)?;
        (parent.trace != [0; 16]).then_some(parent)
    }
}

pub use endpoint::Collector;
use lines::{attributes, client_line, stub};

/// Takes spans of programs in steps, until `closed`. They get no other service.
pub(crate) async fn serve(
    mut listener: Listener,
    traces: Traces,
    mut closed: watch::Receiver<bool>,
) {
    let Some(Socket::Unix(socket)) = listener.take_socket() else {
        return;
    };
    let served = crate::serve::server()
        .add_service(TraceServiceServer::new(traces))
        .serve_with_incoming_shutdown(UnixListenerStream::new(socket), async move {
            // The sender lives until all servers have ended.
            let _ = closed.wait_for(|closed| *closed).await;
        });
    if let Err(error) = served.await {
        tracing::warn!(%error, address = listener.address, "no more spans of steps");
    }
}

/// Spans by trace, as they came. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traces {
    state: Arc<Mutex<State>>,
    /// Who else is told of them.
    sender: Option<Arc<send::Sender>>,
}

#[derive(Debug, Default)]
struct State {
    by_id: HashMap<TraceId, Kept>,
    /// The oldest first.
    order: VecDeque<TraceId>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Kept {
    lines: Vec<String>,
    bytes: usize,
    /// A line had no room: none is asked for any more.
    full: bool,
}

impl State {
    fn keep(&mut self, id: TraceId, line: String) {
        if line.len() > MAX_TRACE {
            return;
        }
        let order = &mut self.order;
        let kept = self.by_id.entry(id).or_insert_with(|| {
            order.push_back(id);
            Kept::default()
        });
        if kept.bytes + line.len() > MAX_TRACE {
            kept.full = true;
            return;
        }
        kept.bytes += line.len();
        self.bytes += line.len();
        kept.lines.push(line);
        while self.order.len() > MAX_TRACES || self.bytes > MAX_ALL {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            if let Some(gone) = self.by_id.remove(&oldest) {
                self.bytes -= gone.bytes;
            }
        }
    }

    fn is_full(&self, id: &TraceId) -> bool {
        self.by_id.get(id).is_some_and(|kept| kept.full)
    }

    fn take(&mut self, id: &TraceId) -> Vec<String> {
        self.order.retain(|other| other != id);
        let kept = self.by_id.remove(id).unwrap_or_default();
        self.bytes -= kept.bytes;
        kept.lines
    }
}

impl Traces {
    /// Spans that are sent on to `collector` as well, if there is one.
    pub(crate) fn new(collector: Option<Collector>) -> Traces {
        Traces {
            state: Arc::default(),
            sender: collector.map(|collector| Arc::new(send::Sender::start(collector))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a client's spans as far as there is room; gives how many have no proper id.
    fn keep(&self, request: &collector::ExportTraceServiceRequest) -> i64 {
        let mut rejected = 0;
        // A resource is written with each of its spans: little can become much.
        let mut room = MAX_ALL;
        for group in &request.resource_spans {
            let resource = group.resource.as_ref();
            let resource = attributes(resource.map_or(&[], |resource| &resource.attributes));
            for spans in &group.scope_spans {
                let scope = spans.scope.clone().unwrap_or_default();
                let scope = json!({"Name": scope.name, "Version": scope.version, "SchemaURL": spans.schema_url, "Attributes": null});
                for span in &spans.spans {
                    let id = TraceId::try_from(&span.trace_id[..]).ok();
                    let Some(id) = id.filter(|_| span.span_id.len() == 8) else {
                        rejected += 1;
                        continue;
                    };
                    if room == 0 || self.lock().is_full(&id) {
                        continue;
                    }
                    let line = client_line(span, &resource, &scope);
                    room = room.saturating_sub(line.len());
                    self.lock().keep(id, line);
                }
            }
        }
        rejected
    }

    /// Waits a moment for spans that are on their way to the collector.
    pub(crate) async fn sent(&self) {
        if let Some(sender) = &self.sender {
            sender.finish().await;
        }
    }

    /// The trace of a build that ended: its client's spans and one for each of its steps.
    pub(crate) fn finish(
        &self,
        parent: &Parent,
        progress: &Progress,
        began: SystemTime,
        ended: SystemTime,
        error: Option<&str>,
    ) -> Vec<u8> {
        let mut lines = self.lock().take(&parent.trace);
        let steps_are = parent.steps(began);
        let own = progress::Trace::id_of(&format!("build {began:?}"));
        let mut spans = Vec::new();
        let root = Work {
            name: "build",
            from: began,
            to: ended,
            error: error.unwrap_or_default(),
            cached: false,
        };
        lines.push(root.line(parent.trace, own, parent.span));
        spans.push(root.span(parent.trace, own, parent.span));
        for (digest, step) in steps(progress) {
            let (Some(from), Some(to)) = (step.started, step.completed) else {
                continue;
            };
            let work = Work {
                name: &step.name,
                from,
                to,
                error: &step.error,
                cached: step.cached,
            };
            let id = steps_are.span(&digest);
            lines.push(work.line(parent.trace, id, own));
            spans.push(work.span(parent.trace, id, own));
        }
        if let Some(sender) = &self.sender {
            let _slow = sender.send(ours(spans));
        }
        let mut text = lines.join("\n");
        text.push('\n');
        text.into_bytes()
    }
}

/// Each step by its last word.
fn steps(progress: &Progress) -> BTreeMap<Digest, progress::Step> {
    let mut follower = progress.follow();
    let mut last = BTreeMap::new();
    loop {
        let events = follower.ready(512);
        if events.is_empty() {
            return last;
        }
        let steps = events.into_iter().filter_map(|event| match event {
            Event::Step(step) => Some((step.digest, step)),
            _ => None,
        });
        last.extend(steps);
    }
}

/// Spans of ours, as collectors want them.
fn ours(spans: Vec<wire::Span>) -> collector::ExportTraceServiceRequest {
    let text = |text: &str| common::AnyValue {
        value: Some(common::any_value::Value::StringValue(text.to_owned())),
    };
    let name = common::KeyValue {
        key: "service.name".to_owned(),
        value: Some(text("kiln")),
    };
    let scope = common::InstrumentationScope {
        name: "kiln".to_owned(),
        ..common::InstrumentationScope::default()
    };
    collector::ExportTraceServiceRequest {
        resource_spans: vec![wire::ResourceSpans {
            resource: Some(proto::opentelemetry::proto::resource::v1::Resource {
                attributes: vec![name],
                ..Default::default()
            }),
            scope_spans: vec![wire::ScopeSpans {
                scope: Some(scope),
                spans,
                ..wire::ScopeSpans::default()
            }],
            ..wire::ResourceSpans::default()
        }],
    }
}

/// As many bytes as `to` has.
fn read_hex(text: &str, to: &mut [u8]) -> Option<()> {
    to.iter_mut().enumerate().try_for_each(|(at, byte)| {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
        Some(())
    })
}

/// Something of ours that took time.
struct Work<'a> {
    name: &'a str,
    from: SystemTime,
    to: SystemTime,
    error: &'a str,
    cached: bool,
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Work<'_> {
    fn span(&self, trace: TraceId, id: [u8; 8], parent: [u8; 8]) -> wire::Span {
        let none = parent == [0; 8];
        wire::Span {
            trace_id: trace.to_vec().into(),
            span_id: id.to_vec().into(),
            parent_span_id: if none {
                Bytes::new()
            } else {
                parent.to_vec().into()
            },
            name: self.name.to_owned(),
            kind: INTERNAL,
            start_time_unix_nano: nanos(self.from),
            end_time_unix_nano: nanos(self.to),
            attributes: vec![common::KeyValue {
                key: "cached".to_owned(),
                value: Some(common::AnyValue {
                    value: Some(common::any_value::Value::BoolValue(self.cached)),
                }),
            }],
            status: (!self.error.is_empty()).then(|| wire::Status {
                message: self.error.to_owned(),
                code: FAILED,
            }),
            ..wire::Span::default()
        }
    }

    fn line(&self, trace: TraceId, id: [u8; 8], parent: [u8; 8]) -> String {
        let status = match self.error {
            "" => json!({"Code": "Unset", "Description": ""}),
            error => json!({"Code": "Error", "Description": error}),
        };
        let attributes =
            json!([{"Key": "cached", "Value": {"Type": "BOOL", "Value": self.cached}}]);
        let program =
            json!([{"Key": "service.name", "Value": {"Type": "STRING", "Value": "kiln"}}]);
        let times = (nanos(self.from), nanos(self.to));
        stub(
            self.name,
            (&trace, &id, &parent),
            INTERNAL,
            times,
            [attributes, json!(null), json!(null)],
            status,
            &program,
            &json!({"Name": "kiln", "Version": "", "SchemaURL": "", "Attributes": null}),
        )
    }
}

#[tonic::async_trait]
impl TraceService for Traces {
    async fn export(
        &self,
        request: Request<collector::ExportTraceServiceRequest>,
    ) -> Result<Response<collector::ExportTraceServiceResponse>, Status> {
        let request = request.into_inner();
        if request.encoded_len() > MAX_TRACE {
            return Err(Status::resource_exhausted("too many spans at once"));
        }
        let traces = self.clone();
        let keep = move || (traces.keep(&request), request);
        let (rejected, request) = stdx::task::blocking(keep).await;
        if let Some(sender) = &self.sender {
            let _slow = sender.send(request);
        }
        let partial_success = (rejected > 0).then(|| collector::ExportTracePartialSuccess {
            rejected_spans: rejected,
            error_message: "a span has no proper id".to_owned(),
        });
        Ok(Response::new(collector::ExportTraceServiceResponse {
            partial_success,
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn span(trace: u8, name: &str) -> wire::Span {
        wire::Span {
            trace_id: vec![trace; 16].into(),
            span_id: vec![7; 8].into(),
            name: name.to_owned(),
            kind: 3,
            start_time_unix_nano: 1_000_000_001,
            attributes: vec![common::KeyValue {
                key: "k".into(),
                value: Some(common::AnyValue {
                    value: Some(common::any_value::Value::IntValue(5)),
                }),
            }],
            ..wire::Span::default()
        }
    }

    async fn export(
        traces: &Traces,
        spans: Vec<wire::Span>,
    ) -> collector::ExportTraceServiceResponse {
        let scope_spans = vec![wire::ScopeSpans {
            spans,
            ..Default::default()
        }];
        let resource_spans = vec![wire::ResourceSpans {
            scope_spans,
            ..Default::default()
        }];
        let request = collector::ExportTraceServiceRequest { resource_spans };
        traces
            .export(Request::new(request))
            .await
            .unwrap()
            .into_inner()
    }

    /// Rows: D29, D33
    #[tokio::test]
    async fn spans_of_a_client_and_steps_of_its_build_make_one_trace() {
        let traces = Traces::default();
        let told = export(
            &traces,
            vec![span(1, "client"), span(2, "other"), wire::Span::default()],
        )
        .await;
        assert_eq!(told.partial_success.unwrap().rejected_spans, 1);
        let mut metadata = MetadataMap::new();
        let header = format!("00-{}-{}-01", "01".repeat(16), "07".repeat(8));
        metadata.insert("traceparent", header.parse().unwrap());
        metadata.insert("tracestate", "vendor=1".parse().unwrap());
        let parent = Parent::of(&metadata, "b");
        let now = SystemTime::now();
        let progress = Progress::new(progress::Options {
            trace: Some(parent.steps(now)),
            ..progress::Options::default()
        });
        let step = progress.step(Digest::of("s"), "RUN x", &[]);
        step.start();
        step.fail("exit code: 1");
        let told = step.trace_environment();
        let bytes = traces.finish(&parent, &progress, now, now, None);
        let lines: Vec<Value> = String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let names: Vec<_> = lines
            .iter()
            .map(|line| line["Name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["client", "build", "RUN x"]);
        assert_eq!(lines[0]["StartTime"], "1970-01-01T00:00:01.000000001Z");
        assert_eq!(
            lines[0]["Attributes"][0]["Value"],
            json!({"Type": "INT64", "Value": 5})
        );
        assert_eq!(lines[1]["Parent"]["SpanID"], "07".repeat(8));
        assert_eq!(
            lines[2]["Parent"]["SpanID"],
            lines[1]["SpanContext"]["SpanID"]
        );
        assert_eq!(lines[2]["Status"]["Code"], "Error");
        // What the step was told names its span.
        let span = lines[2]["SpanContext"]["SpanID"].as_str().unwrap();
        let trace = "01".repeat(16);
        let expected = [
            format!("TRACEPARENT=00-{trace}-{span}-01"),
            "TRACESTATE=vendor=1".to_owned(),
        ];
        assert_eq!(told, expected);
        let header = format!("00-{trace}-{}-00", "07".repeat(8));
        metadata.insert("traceparent", header.parse().unwrap());
        metadata.insert("tracestate", "x".repeat(600).parse().unwrap());
        let unwanted = Parent::of(&metadata, "b");
        assert!(!unwanted.sampled && unwanted.state.is_empty());
    }

    /// Rows: D29
    #[tokio::test]
    async fn spans_nobody_fetches_do_not_fill_memory() {
        let traces = Traces::default();
        for trace in 0..=255 {
            // A megabyte now and then: twice what may be kept, and many small ones.
            let spans = if trace % 4 == 0 { 10 } else { 0 };
            let mut spans = vec![span(trace, &"x".repeat(100_000)); spans];
            spans.push(span(trace, "x"));
            export(&traces, spans).await;
        }
        let state = traces.lock();
        assert!(
            state.by_id.len() <= MAX_TRACES && state.bytes <= MAX_ALL,
            "{}",
            state.bytes
        );
    }

    /// Each span is written with its resource, so that little can become much.
    /// Rows: D29
    #[tokio::test]
    async fn spans_of_a_large_resource_do_not_fill_memory() {
        let traces = Traces::default();
        let resource = |size: usize| {
            let text = common::any_value::Value::StringValue("x".repeat(size));
            let attribute = common::KeyValue {
                key: "k".into(),
                value: Some(common::AnyValue { value: Some(text) }),
            };
            proto::opentelemetry::proto::resource::v1::Resource {
                attributes: vec![attribute],
                ..Default::default()
            }
        };
        let request = |trace, spans, size| {
            let scope_spans = vec![wire::ScopeSpans {
                spans: vec![span(trace, "s"); spans],
                ..Default::default()
            }];
            collector::ExportTraceServiceRequest {
                resource_spans: vec![wire::ResourceSpans {
                    resource: Some(resource(size)),
                    scope_spans,
                    ..Default::default()
                }],
            }
        };
        for (trace, size) in [(1, MAX_TRACE / 2), (2, MAX_TRACE - 100_000)] {
            let request = request(trace, 1000, size);
            traces.export(Request::new(request)).await.unwrap();
        }
        {
            let state = traces.lock();
            assert!(state.is_full(&[1; 16]) && state.is_full(&[2; 16]));
            assert_eq!(state.by_id[&[1; 16]].lines.len(), 1);
        }
        // What cannot be kept at all leaves no trace.
        traces.lock().keep([3; 16], "x".repeat(MAX_TRACE + 1));
        assert!(!traces.lock().by_id.contains_key(&[3; 16]));
        assert_eq!(traces.lock().order.len(), 2);
    }

    #[test]
    fn headers_that_are_none_are_passed_over() {
        for header in [
            "",
            "00",
            "00-xx-yy-01",
            "00-00000000000000000000000000000000-0000000000000000-00",
        ] {
            assert_eq!(Parent::parse(header), None, "{header}");
        }
    }
}

//! Source policies that a frontend sends along with what it asks, and what a client may ask about
//! a source before it decides.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use engine::{ClientFrontend, Policy, Request};
use frontend::policy::{Action, Match, Rule, SourcePolicy, Update};
use frontend::{
    Bridge, FrontendResult, ImageLookup, LayoutStore, NestedRequest, ResolveMode, SolveRequest,
};
use llb::facts::{ChecksumAlgorithm, ChecksumQuestion, Facts, Questions};
use llb::{Builder, Meta};
use session::{Attachables, PolicyAnswer, PolicyQuestion, Session};
use stdx::Kind;
use testkit::image::Image;
use testkit::registry::Server;
use testkit::web::{Page, Web};

use crate::setup;

const A: &str = "https://a.invalid/file";
const B: &str = "https://b.invalid/file";

fn rule(action: Action, identifier: &str) -> Rule {
    Rule {
        action,
        matching: Match::Wildcard,
        identifier: identifier.to_owned(),
        constraints: Vec::new(),
        update: None,
    }
}

fn policies(rules: Vec<Rule>) -> Vec<SourcePolicy> {
    vec![SourcePolicy { rules }]
}

fn convert(from: &str, into: &str) -> Rule {
    Rule {
        update: Some(Update {
            identifier: into.to_owned(),
            attrs: BTreeMap::new(),
        }),
        ..rule(Action::Convert, from)
    }
}

fn graph(identifier: &str, policies: Vec<SourcePolicy>) -> SolveRequest {
    let mut builder = Builder::new();
    let edge = builder.source(identifier, [], None, Meta::default());
    SolveRequest {
        definition: builder.definition(Some(&edge)),
        policies,
        ..SolveRequest::default()
    }
}

/// The one source of a graph that was loaded.
async fn loaded(bridge: &dyn Bridge, request: SolveRequest) -> frontend::Result<String> {
    let reference = bridge.solve(request).await?.expect("it is not empty");
    let graph = llb::Graph::load(&bridge.definition(&reference).await?).expect("it was loaded");
    let llb::OpKind::Source(source) = &graph.vertices()[0].op.kind else {
        panic!("{graph:?}")
    };
    Ok(source.identifier.clone())
}

fn told<T: std::fmt::Debug>(answer: frontend::Result<T>) -> Result<T, String> {
    answer.map_err(|error| {
        assert_eq!(error.kind(), Kind::Denied, "{error:?}");
        let mut why: &dyn std::error::Error = &error;
        let mut said = String::new();
        while let Some(cause) = why.source() {
            said = why.to_string();
            why = cause;
        }
        // Clients look for these words alone.
        assert_eq!(why.to_string(), "source denied by policy");
        said
    })
}

type Seen = Arc<Mutex<Vec<(&'static str, Result<String, String>)>>>;

/// Asks for all that can be asked, with and without policies.
fn asks(seen: Seen) -> ClientFrontend {
    Box::new(move |bridge| {
        Box::pin(async move {
            let saw = |what, answer| seen.lock().unwrap().push((what, answer));
            let deny = |identifier| policies(vec![rule(Action::Deny, identifier)]);
            let bridge = &*bridge;
            let solved = async |request| told(loaded(bridge, request).await);

            saw("denied", solved(graph(A, deny("https://a*"))).await);
            saw("other rule", solved(graph(A, deny("https://b*"))).await);
            // What one question came with holds for no other.
            saw("no rule", solved(graph(A, Vec::new())).await);
            let mut moved = policies(vec![convert(A, "https://c.invalid/file")]);
            saw("converted", solved(graph(A, moved.clone())).await);
            moved.extend(deny("https://c*"));
            saw("both", solved(graph(A, moved)).await);
            let allow = policies(vec![rule(Action::Allow, "*")]);
            saw("client", solved(graph(B, allow)).await);
            let into = policies(vec![convert(A, B)]);
            saw("client in the end", solved(graph(A, into)).await);

            let lookup = ImageLookup {
                policies: deny("docker-image://a.invalid/*"),
                ..ImageLookup::default()
            };
            let found = bridge.resolve_image("a.invalid/image", lookup).await;
            saw("image", told(found).map(|image| image.name));
            let lookup = ImageLookup {
                policies: deny("oci-layout://*"),
                layout: Some(LayoutStore::default()),
                ..ImageLookup::default()
            };
            let found = bridge.resolve_image("image", lookup).await;
            saw("layout", told(found).map(|image| image.name));
            let attrs = BTreeMap::new();
            let questions = Questions::default();
            let found = bridge.resolve_source(A, &attrs, None, deny("https://a*"), &questions);
            saw("source", told(found.await).map(|found| found.identifier));
            // It asks for its context, and is none the wiser.
            let nested = NestedRequest {
                frontend: "dockerfile.v0".to_owned(),
                options: BTreeMap::from([("context".to_owned(), A.to_owned())]),
                policies: deny("https://a*"),
                ..NestedRequest::default()
            };
            let result = bridge.nested(nested).await;
            saw("nested", told(result).map(|result| format!("{result:?}")));
            Ok(FrontendResult::default())
        })
    })
}

/// They hold for that question, beside the client's, which no frontend can lift.
///
/// Rows: P05, G02, G03
#[tokio::test(flavor = "multi_thread")]
async fn privileged_policies_of_a_frontend_hold_for_its_question() {
    let Some((engine, _dir)) = setup::engine().await else {
        return;
    };
    let seen = Seen::default();
    let request = Request {
        policy: Policy {
            rules: vec![rule(Action::Deny, "https://b.*")],
            session: String::new(),
        },
        ..setup::by(asks(seen.clone()))
    };
    setup::build(&engine, request).await.unwrap();
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let denied = |identifier: &str| Err(format!("source {identifier:?} denied by policy"));
    let wanted = [
        ("denied", denied(A)),
        ("other rule", Ok(A.to_owned())),
        ("no rule", Ok(A.to_owned())),
        ("converted", Ok("https://c.invalid/file".to_owned())),
        ("both", denied("https://c.invalid/file")),
        ("client", denied(B)),
        ("client in the end", denied(B)),
        ("image", denied("docker-image://a.invalid/image:latest")),
        ("layout", denied("oci-layout://image")),
        ("source", denied(A)),
        ("nested", denied(A)),
    ];
    assert_eq!(seen, wanted);
    engine.close().await;
}

/// A client who allows a source once it knows all about it.
struct Curious(Mutex<Vec<(String, Facts)>>);

#[async_trait]
impl session::Policies for Curious {
    async fn check(&self, question: &PolicyQuestion) -> session::Result<PolicyAnswer> {
        if question.facts == Facts::Nothing {
            return Ok(PolicyAnswer::More(Questions {
                attestations: true,
                objects: true,
                checksum: Some(ChecksumQuestion {
                    algorithm: ChecksumAlgorithm::Sha256,
                    suffix: bytes::Bytes::from_static(b"!"),
                }),
                ..Questions::default()
            }));
        }
        let seen = (question.identifier.clone(), question.facts.clone());
        self.0.lock().unwrap().push(seen);
        Ok(PolicyAnswer::Allow)
    }
}

/// Rows: P06, G03
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_client_is_told_what_it_asks_about_a_source() {
    let Some((engine, _dir)) = setup::engine().await else {
        return;
    };
    let server = Server::start().await;
    let image = Image::seeded(1, 1, 1, 10);
    server.add_image("app", "1", &image);
    let web = Web::start().await;
    let page = Page {
        bytes: "content".to_owned().into(),
        ..Page::default()
    };
    web.put("/f", page);
    let (name, address) = (
        format!("docker-image://{}/app:1", server.host()),
        web.url("/f"),
    );
    let client = Arc::new(Curious(Mutex::default()));
    let offers = Attachables {
        policies: Some(client.clone()),
        ..Attachables::new()
    };
    let _session = engine
        .sessions()
        .register(Session::direct("policy", "test", offers));
    let (asked, local) = ([name.clone(), address.clone()], "local://context");
    let run: ClientFrontend = Box::new(move |bridge| {
        Box::pin(async move {
            for identifier in asked {
                loaded(&*bridge, graph(&identifier, Vec::new())).await?;
            }
            // There is nothing to know about a directory of the client, however often it asks.
            let error = loaded(&*bridge, graph(local, Vec::new()))
                .await
                .unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported, "{error:?}");
            Ok(FrontendResult::default())
        })
    });
    let request = Request {
        session: "policy".to_owned(),
        policy: Policy {
            rules: Vec::new(),
            session: "policy".to_owned(),
        },
        ..setup::by(run)
    };
    setup::build(&engine, request).await.unwrap();
    let seen = std::mem::take(&mut *client.0.lock().unwrap());
    let manifest = image.manifest.descriptor.digest;
    let [
        (first, Facts::Image(told)),
        (second, Facts::Download(download)),
    ] = &seen[..]
    else {
        panic!("{seen:?}")
    };
    assert_eq!((first, second), (&name, &address));
    assert_eq!((told.digest, &told.config), (manifest, &image.config.bytes));
    let chain = told.attestations.as_ref().unwrap();
    assert_eq!((chain.root, chain.attestation_manifest), (manifest, None));
    assert_eq!(download.digest, oci::Digest::of("content"));
    let expected = oci::Digest::of("content!").to_string();
    assert_eq!(
        download.checksum,
        Some((expected, bytes::Bytes::from_static(b"!")))
    );
}

/// What a client was asked, and what it answered.
type Asked = (String, BTreeMap<String, String>, Facts);

/// A client who has questions before it denies.
struct Doubtful {
    questions: Option<Questions>,
    asked: Mutex<Vec<Asked>>,
}

#[async_trait]
impl session::Policies for Doubtful {
    async fn check(&self, question: &PolicyQuestion) -> session::Result<PolicyAnswer> {
        let told = (
            question.identifier.clone(),
            question.attrs.clone(),
            question.facts.clone(),
        );
        self.asked.lock().unwrap().push(told);
        Ok(match (&self.questions, &question.facts) {
            (Some(questions), Facts::Nothing) => PolicyAnswer::More(questions.clone()),
            _ => PolicyAnswer::Deny(Vec::new()),
        })
    }
}

/// Looks images up under this client's policy: how that fails, and what the client was asked.
async fn doubted(
    engine: &engine::Engine,
    questions: Option<Questions>,
    lookups: Vec<(String, ImageLookup)>,
) -> (Vec<Kind>, Vec<Asked>) {
    let client = Arc::new(Doubtful {
        questions,
        asked: Mutex::default(),
    });
    let offers = Attachables {
        policies: Some(client.clone()),
        ..Attachables::new()
    };
    let session = Session::direct("doubtful", "test", offers);
    let _session = engine.sessions().register(session);
    let failed = Arc::new(Mutex::new(Vec::new()));
    let seen = failed.clone();
    let run: ClientFrontend = Box::new(move |bridge| {
        Box::pin(async move {
            for (name, lookup) in lookups {
                let found = bridge.resolve_image(&name, lookup).await;
                seen.lock().unwrap().push(found.unwrap_err().kind());
            }
            Ok(FrontendResult::default())
        })
    });
    let request = Request {
        session: "doubtful".to_owned(),
        policy: Policy {
            rules: Vec::new(),
            session: "doubtful".to_owned(),
        },
        ..setup::by(run)
    };
    setup::build(engine, request).await.unwrap();
    let failed = std::mem::take(&mut *failed.lock().unwrap());
    let asked = std::mem::take(&mut *client.asked.lock().unwrap());
    (failed, asked)
}

/// It is decided on the source that is then read: where it lies and when a registry is asked.
///
/// Rows: P06, G03
#[tokio::test(flavor = "multi_thread")]
async fn privileged_an_image_that_is_looked_up_has_its_attributes() {
    let Some((engine, _dir)) = setup::engine().await else {
        return;
    };
    let digest = oci::Digest::of("image");
    let layout = LayoutStore {
        session: String::new(),
        store: "store".to_owned(),
    };
    let plain = || ("a.invalid/image".to_owned(), ImageLookup::default());
    let pull = ImageLookup {
        mode: ResolveMode::Pull,
        ..ImageLookup::default()
    };
    let layout = ImageLookup {
        layout: Some(layout),
        ..ImageLookup::default()
    };
    let lookups = vec![
        plain(),
        (plain().0, pull),
        (format!("dir@{digest}"), layout),
    ];
    let (failed, asked) = doubted(&engine, None, lookups).await;
    assert_eq!(failed, [Kind::Denied; 3]);
    let asked: Vec<_> = asked
        .iter()
        .map(|(identifier, attrs, _)| {
            let attrs = attrs.iter().map(|(key, value)| format!("{key}={value}"));
            (identifier.as_str(), attrs.collect::<Vec<_>>().join(" "))
        })
        .collect();
    let image = "docker-image://a.invalid/image:latest";
    let dir = format!("oci-layout://dir@{digest}");
    let wanted = [
        (image, String::new()),
        (image, "image.resolvemode=pull".to_owned()),
        (
            dir.as_str(),
            "oci.session=doubtful oci.store=store".to_owned(),
        ),
    ];
    assert_eq!(asked, wanted);
    engine.close().await;
}

/// Rows: P06, G03
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_client_may_ask_about_another_platform_and_how_it_is_looked_up() {
    let Some((engine, _dir)) = setup::engine().await else {
        return;
    };
    let server = Server::start().await;
    let images = ["amd64", "arm64"].map(|name| Image::of(Vec::new(), name));
    let names = ["linux/amd64", "linux/arm64"];
    let all = [(names[0], &images[0]), (names[1], &images[1])];
    for image in &images {
        server.add_image("app", "one", image);
    }
    server.add_manifest("app", "1", &Image::index(&all));
    let lookups = || {
        let platform = Some(names[0].parse().unwrap());
        let lookup = ImageLookup {
            platform,
            ..ImageLookup::default()
        };
        vec![(format!("{}/app:1", server.host()), lookup)]
    };
    let config = |asked: &[Asked]| match &asked.last().unwrap().2 {
        Facts::Image(image) => image.config.clone(),
        other => panic!("{other:?}"),
    };
    for (at, platform) in [(0, None), (1, Some(names[1].parse().unwrap()))] {
        let questions = Questions {
            platform,
            ..Questions::default()
        };
        let (failed, asked) = doubted(&engine, Some(questions), lookups()).await;
        assert_eq!(failed, [Kind::Denied]);
        assert_eq!(config(&asked), images[at].config.bytes);
    }
    for (mode, kind) in [("pull", Kind::Denied), ("never", Kind::InvalidInput)] {
        let questions = Questions {
            mode: Some(mode.to_owned()),
            ..Questions::default()
        };
        let (failed, _) = doubted(&engine, Some(questions), lookups()).await;
        assert_eq!(failed, [kind], "{mode}");
    }
    engine.close().await;
}

/// Something else in place of an image is not looked up as one was to be.
///
/// Rows: P05
#[tokio::test(flavor = "multi_thread")]
async fn privileged_what_comes_in_place_of_an_image_has_attributes_of_its_own() {
    let Some((engine, _dir)) = setup::engine().await else {
        return;
    };
    let run: ClientFrontend = Box::new(move |bridge| {
        Box::pin(async move {
            let mut rule = convert("docker-image://a.invalid/*", A);
            let update = rule.update.as_mut().unwrap();
            update.attrs = BTreeMap::from([("http.filename".to_owned(), "f".to_owned())]);
            let lookup = ImageLookup {
                mode: ResolveMode::Pull,
                policies: policies(vec![rule]),
                ..ImageLookup::default()
            };
            let found = bridge.resolve_image("a.invalid/image", lookup).await;
            let Err(frontend::Error::NotAnImage { instead, .. }) = found else {
                panic!("{found:?}")
            };
            let attrs: Vec<_> = instead.attrs.into_keys().collect();
            assert_eq!(
                (instead.identifier.as_str(), &attrs[..]),
                (A, &["http.filename".to_owned()][..])
            );
            Ok(FrontendResult::default())
        })
    });
    setup::build(&engine, setup::by(run)).await.unwrap();
    engine.close().await;
}

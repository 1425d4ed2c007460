//! Results for other platforms than were asked for.

use std::collections::BTreeMap;

use engine::{Compatibility, Config, Engine, Policy, Request, What};
use frontend::{FrontendResult, metadata_key};
use progress::{Event, Progress};

/// The build goes well, and a step of it carries the remark.
///
/// Rows: E11
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_result_for_another_platform_is_remarked_on() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(Config::new(dir.path())).await.unwrap();
    for (asked, remarks) in [("linux/s390x", 0), ("linux/arm/v5", 1)] {
        let listed = r#"{"Platforms":[
            {"ID":"one","Platform":{"architecture":"s390x","os":"linux"}}]}"#;
        let result = FrontendResult {
            metadata: [(metadata_key::PLATFORMS.to_owned(), listed.into())].into(),
            ..FrontendResult::default()
        };
        let request = Request {
            id: asked.to_owned(),
            session: String::new(),
            what: What::Client {
                options: BTreeMap::from([("platform".to_owned(), asked.to_owned())]),
                inputs: BTreeMap::new(),
                run: Box::new(move |_| Box::pin(async move { Ok(result) })),
            },
            exporters: Vec::new(),
            session_exporter: false,
            cache_imports: Vec::new(),
            cache_exports: Vec::new(),
            entitlements: Vec::new(),
            policy: Policy::default(),
            compatibility: Compatibility::default(),
            remembered: false,
        };
        let progress = Progress::new(progress::Options::default());
        let mut follower = progress.follow();
        engine.build(request, progress.clone()).await.unwrap();
        let events = follower.ready(1000);
        let warned = events.iter().filter_map(|event| match event {
            Event::Warning(warning) => Some((warning.step, warning.short.as_str())),
            _ => None,
        });
        let warned: Vec<_> = warned.collect();
        assert_eq!(warned.len(), remarks, "{events:?}");
        for (step, short) in warned {
            assert_eq!(
                short,
                "Requested platform \"linux/arm/v5\" does not match result platform \"linux/s390x\""
            );
            let seen = |event: &Event| match event {
                Event::Step(seen) => seen.digest == step && seen.completed.is_some(),
                _ => false,
            };
            assert!(events.iter().any(seen), "{events:?}");
        }
    }
    engine.close().await;
}

//! Results for other platforms than were asked for.

use std::collections::BTreeMap;

use engine::What;
use frontend::{FrontendResult, metadata_key};
use progress::{Event, Progress};

use crate::setup;

/// The build goes well, and a step of it carries the remark.
///
/// Rows: E11
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_result_for_another_platform_is_remarked_on() {
    let Some((engine, _dir)) = setup::engine().await else {
        return;
    };
    for (asked, remarks) in [("linux/s390x", 0), ("linux/arm/v5", 1)] {
        let listed = r#"{"Platforms":[
            {"ID":"one","Platform":{"architecture":"s390x","os":"linux"}}]}"#;
        let result = FrontendResult {
            metadata: [(metadata_key::PLATFORMS.to_owned(), listed.into())].into(),
            ..FrontendResult::default()
        };
        let request = setup::request(What::Client {
            options: BTreeMap::from([("platform".to_owned(), asked.to_owned())]),
            inputs: BTreeMap::new(),
            run: Box::new(move |_| Box::pin(async move { Ok(result) })),
        });
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

//! What a source turned out to be, for all builds that share its reading.

use llb::{Builder, Graph, Meta};
use solver::{JobId, OpContext};
use testkit::image::Image;
use testkit::registry::Server;

use crate::setup::World;

/// A build that joins another's step is told what that one read, though the tag has moved since.
///
/// Rows: P02, P19
#[tokio::test(flavor = "multi_thread")]
async fn privileged_builds_that_share_a_step_share_its_pin() {
    let Some(world) = World::new().await else {
        return;
    };
    let server = Server::start().await;
    let before = server.add_image("app", "1", &Image::seeded(1, 1, 1, 10));
    let mut builder = Builder::new();
    let name = format!("docker-image://{}/app:1", server.host());
    let image = builder.source(name, None, None, Meta::default());
    let graph = Graph::load(&builder.definition(Some(&image))).unwrap();
    let (first, second) = (world.plain(), world.plain());
    let op = |client: &crate::setup::Client| {
        let mut specs = client.vertices(&graph).unwrap();
        specs.remove(0).op
    };
    let pins = world.parts.sources.pins();
    let (read, joined) = (op(&first), op(&second));
    assert!(pins.get(&image.digest).is_none());
    let cx = OpContext {
        step: progress::StepProgress::none(),
        job: JobId(1),
        vertex: None,
        missed: None,
    };
    read.cache_map(&cx, 0).await.unwrap();
    server.add_image("app", "1", &Image::seeded(2, 1, 1, 10));
    // The one that read it leaves; the one that joined tells what it was made of.
    drop((read, first));
    let pin = pins.get(&image.digest).unwrap();
    assert_eq!(*pin, before.digest.to_string());
    // A new reading after the last build left is a new one.
    drop(joined);
    assert!(pins.get(&image.digest).is_none());
    let again = op(&second);
    again.cache_map(&cx, 0).await.unwrap();
    let moved = pins.get(&image.digest).unwrap();
    assert_ne!(*moved, before.digest.to_string());
}

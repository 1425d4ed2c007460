//! What is left of the verbs: the disk, records in all their forms, bake's flags, and the
//! debugger that editors talk to.
//!
//! Not on the tour, as no daemon hears of them: `create`, `use`, `rm`, `stop`, `version`, `bake --print` and `--list`, and
//! `imagetools create` are the client's own with a remote builder; `history open` and `import` talk to Docker Desktop.
//! `history trace` is not in the buildx that Debian builds. `debug build` is with [the frontends](crate::frontends).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Stop, Who, both_ok};
use crate::harness::{Ran, json as parsed};

/// The id each builder gave the last build, from the file its metadata went to.
fn ids(stop: &Stop, file: &str) -> [String; 2] {
    stop.outs(file).map(|metadata| {
        let metadata = parsed(&metadata);
        let id = metadata["buildx.build.ref"].as_str().expect("a ref");
        id.rsplit('/').next().expect("an id").to_owned()
    })
}

/// A filter that only what this build made passes.
const OURS: &str = "--filter=description~=spelt-out-verbs";

fn uses_disk(stop: &Stop) {
    stop.dockerfile("FROM BASE\nRUN echo spelt-out-verbs > /made\n");
    both_ok(stop.builds(&["--output=type=cacheonly", "ctx"]));
}

/// The fields `du --verbose` has, in their order.
fn fields(ran: &Ran) -> Vec<String> {
    let text = ran.text();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    let fields = fields.map(|(field, _)| field.to_owned());
    fields
        .filter(|field| field != "Parents" && field != "Parent")
        .collect()
}

/// Rows: A08, A09
#[test]
fn the_disk_is_shown_and_pruned_by_every_flag() {
    let Some(stop) = Stop::at("disk") else {
        return;
    };
    uses_disk(&stop);
    for args in [
        &["du", "--verbose", OURS][..],
        &["du", "--verbose", OURS, "--filter=type=regular"],
        &["du", "--verbose", OURS, "--filter=type=source.local"],
        &["du", "--verbose", OURS, "--filter=inuse=true"],
        &["du", "--verbose", OURS, "--filter=mutable=true"],
        &["du", "--verbose", OURS, "--filter=private=true"],
        &["du", "--verbose", OURS, "--filter=shared=false"],
        &["du", "--verbose", OURS, "--filter=until=24h"],
    ] {
        let [theirs, ours] = both_ok(stop.both(args));
        assert_eq!(fields(&ours), fields(&theirs), "{args:?}\n{ours}\n{theirs}");
    }
    let keys = |ran: &Ran| -> BTreeSet<String> {
        let line = ran.text().lines().next().expect("our record").to_owned();
        let record = parsed(line.as_bytes());
        assert_eq!(record["Type"], "regular");
        assert_eq!(record["Reclaimable"], true);
        record
            .as_object()
            .expect("a record")
            .keys()
            .cloned()
            .collect()
    };
    let shown = both_ok(stop.both(&["du", "--format=json", OURS]));
    assert_eq!(keys(&shown[1]), keys(&shown[0]));
    // What may stay stays; what is asked for goes, and is shown.
    for args in [
        &["--max-used-space=1TB"][..],
        &["--reserved-space=1TB"],
        &["--max-used-space=1TB", "--min-free-space=1MB"],
        &["--keep-storage=1TB"],
        &["--filter=until=24h"],
        &["--filter=type=exec.cachemount"],
    ] {
        let args = [&["prune", "--force", OURS], args].concat();
        for pruned in both_ok(stop.both(&args)) {
            assert!(pruned.text().contains("Total:\t0B"), "{args:?}: {pruned}");
        }
    }
    let prune = ["prune", "--force", "--all", "--verbose", OURS];
    let [theirs, ours] = both_ok(stop.both(&prune));
    // The BuildKit in Docker does not say yet of what type a record was.
    let mut more = fields(&theirs);
    more.insert(more.len() - 1, "Type".to_owned());
    assert_eq!(fields(&ours), more, "{ours}\n{theirs}");
    assert!(!ours.text().contains("Total:\t0B"), "{ours}");
    for left in both_ok(stop.both(&["du", "--format=json", OURS])) {
        assert_eq!(left.text().trim(), "", "{left}");
    }
    // A pattern that is none finds nothing with BuildKit, and is an error here.
    let [theirs, ours] = stop.both(&["prune", "--force", "--filter=type~=("]);
    assert!(theirs.ok().text().contains("Total:\t0B"));
    ours.fails().says(&["filter `type~=(`"]);
    // A filter that is none is told by the daemon.
    for ran in stop.both(&["du", "--filter=description~=\"a"]) {
        ran.fails()
            .says(&["description~=", "failed to call diskusage"]);
    }
}

/// Names of steps with how each ended, and what they said, of `--progress=rawjson`.
fn story(ran: &Ran) -> (BTreeSet<String>, Vec<String>) {
    let (mut steps, mut said) = (BTreeSet::new(), Vec::new());
    let told = format!("{}{}", ran.text(), ran.stderr);
    for line in told.lines().filter(|line| line.starts_with('{')) {
        let told = parsed(line.as_bytes());
        for vertex in told["vertexes"].as_array().into_iter().flatten() {
            if vertex["completed"].is_string() {
                let name = vertex["name"].as_str().expect("a name");
                // How often and under which name an image is looked up is each builder's own.
                if !name.contains("load metadata") && !name.contains("/library/base") {
                    steps.insert(format!("{name} cached={}", vertex["cached"] == true));
                }
            }
        }
        for log in told["logs"].as_array().into_iter().flatten() {
            said.push(log["data"].as_str().expect("text").to_owned());
        }
    }
    (steps, said)
}

/// Rows: A12, A13, A14, P10
#[test]
fn records_are_told_in_every_form() {
    let Some(stop) = Stop::at("records") else {
        return;
    };
    stop.dockerfile("FROM BASE\nRUN echo in every form\n");
    both_ok(stop.builds(&[
        "--provenance=mode=max",
        "--output=type=oci,dest=OUT/i.tar",
        "--metadata-file=OUT/m.json",
        "ctx",
    ]));
    let ids = ids(&stop, "m.json");
    let each = |args: &[&str]| {
        let mut at = ids.iter();
        Who::BOTH.map(|who| {
            let id = at.next().expect("two");
            stop.run(who, &[&["history"], args, &[id.as_str()]].concat())
        })
    };
    let told = both_ok(each(&["logs", "--progress=rawjson"]));
    assert_eq!(story(&told[1]), story(&told[0]));
    assert_eq!(story(&told[1]).1.len(), 1, "{}", told[1]);

    // Every attachment by its digest, the statement by its kind and platform too.
    let shown = both_ok(each(&["inspect", "--format=json"])).map(|ran| parsed(&ran.stdout));
    for (at, who) in Who::BOTH.into_iter().enumerate() {
        let attachments = shown[at]["Attachments"].as_array().expect("attachments");
        assert!(!attachments.is_empty());
        for one in attachments {
            let digest = one["Digest"].as_str().expect("a digest");
            let inspect = ["history", "inspect", "attachment", &ids[at], digest];
            let document = parsed(&stop.run(who, &inspect).ok().stdout);
            assert!(document.is_object(), "{document}");
        }
    }
    let by_kind = ["inspect", "attachment", "--type=provenance"];
    let statements = both_ok(each(&by_kind)).map(|ran| parsed(&ran.stdout));
    for statement in &statements {
        assert!(
            statement.to_string().contains("library/base"),
            "{statement}"
        );
    }
    for wrong in [
        &["inspect", "attachment"][..],
        &["inspect", "attachment", "--type=dream"],
    ] {
        let [theirs, ours] = each(wrong).map(Ran::fails);
        let plain = |ran: &Ran, id: &str| ran.stderr.replace(id, "ID");
        assert_eq!(plain(&ours, &ids[1]), plain(&theirs, &ids[0]));
    }

    both_ok(each(&[
        "export",
        "--finalize",
        "--output=OUT/one.dockerbuild",
    ]));
    let [theirs, ours] = Who::BOTH.map(|who| bundle(&stop, who));
    assert_eq!(ours, theirs);

    let [a, b] = both_ok(stop.both(&["history", "ls", "--no-trunc", "--format=json"]));
    let keys = |ran: &Ran| -> BTreeSet<String> {
        let line = parsed(ran.text().lines().next().expect("a record").as_bytes());
        line.as_object()
            .expect("a record")
            .keys()
            .cloned()
            .collect()
    };
    assert_eq!(keys(&b), keys(&a));
    for filter in [
        "status=completed",
        "startedAt>2020-01-01T00:00:00Z",
        "duration<10h",
    ] {
        let args = ["history", "ls", "--format={{.Ref}}", "--filter", filter];
        for (ran, id) in both_ok(stop.both(&args)).iter().zip(&ids) {
            assert!(ran.text().contains(id.as_str()), "{filter}: {ran}");
        }
    }
}

/// What kinds of documents an exported record has: by its index, annotations and layers.
fn bundle(stop: &Stop, who: Who) -> Vec<String> {
    let folder = stop.path(who.folder()).join("bundle");
    fs::create_dir_all(&folder).expect("a folder");
    let mut tar = Command::new("tar");
    tar.args(["-xzf", "../one.dockerbuild"])
        .current_dir(&folder);
    stop.start(tar).wait().ok();
    let read = |path: String| parsed(&fs::read(folder.join(path)).expect("a document"));
    let index = read("index.json".to_owned());
    let mut found = Vec::new();
    for manifest in index["manifests"].as_array().expect("manifests") {
        let keys = manifest["annotations"].as_object().map(|keys| {
            let keys: Vec<&str> = keys.keys().map(String::as_str).collect();
            keys.join(",")
        });
        found.push(format!("{} {keys:?}", manifest["mediaType"]));
        let digest = manifest["digest"].as_str().expect("a digest");
        let document = read(format!("blobs/{}", digest.replace(':', "/")));
        found.push(document["config"]["mediaType"].to_string());
        for layer in document["layers"].as_array().into_iter().flatten() {
            found.push(layer["mediaType"].to_string());
        }
    }
    found.sort();
    found
}

/// Rows: A14, P10
#[test]
fn bake_takes_every_flag() {
    let Some(stop) = Stop::at("baked") else {
        return;
    };
    stop.dockerfile("FROM BASE AS one\nARG WORD=none\nRUN echo baked $WORD > /made\nFROM scratch\nCOPY --from=one /made /\n");
    stop.write(
        "docker-bake.hcl",
        "variable \"WORD\" { default = \"w\" }\ntarget \"default\" {\n  context = \"ctx\"\n  network = \"none\"\n  args = { WORD = WORD }\n}\n",
    );
    let bake = ["bake", "--progress=plain", "--allow=fs=*"];
    let with = |args: &[&str]| stop.both(&[&bake, args].concat());
    both_ok(with(&[
        "--no-cache",
        "--pull",
        "--provenance=mode=max",
        "--sbom=false",
        "--metadata-file=OUT/m.json",
        "--set=*.output=type=local,dest=OUT/files",
    ]));
    assert_eq!(stop.same("files/made"), "baked w\n");
    let keys = stop.outs("m.json").map(|told| {
        let told = parsed(&told)["default"].clone();
        let keys = told.as_object().expect("of the target").keys();
        keys.cloned().collect::<BTreeSet<_>>()
    });
    assert_eq!(keys[1], keys[0]);
    for call in ["--call=outline", "--call=targets", "--check"] {
        let [theirs, ours] = both_ok(with(&[call]));
        assert_eq!(ours.text(), theirs.text(), "{call}");
    }
}

/// A debugger's client, as editors are: it asks, and waits for what it wants to hear.
struct Editor {
    debugger: Option<crate::harness::Running>,
    keys: File,
    asked: u64,
}

impl Editor {
    fn open(stop: &Stop, who: Who) -> Editor {
        let mut command = stop.command(who, &["dap", "build"]);
        command.env("BUILDX_EXPERIMENTAL", "1");
        let (read, write) = rustix::pipe::pipe().expect("a pipe");
        command.stdin(Stdio::from(read));
        Editor {
            debugger: Some(stop.rig.place.start_with_input(command)),
            keys: File::from(write),
            asked: 0,
        }
    }

    /// Everything the debugger told so far.
    fn told(&self) -> Vec<Value> {
        let debugger = self.debugger.as_ref().expect("it runs");
        let text = debugger.printed();
        let mut rest = text.as_str();
        let mut found = Vec::new();
        while let Some((head, body)) = rest.split_once("\r\n\r\n") {
            let length = head
                .rsplit(' ')
                .next()
                .and_then(|length| length.parse().ok());
            let length: usize = length.unwrap_or_else(|| panic!("no length: {head}"));
            let Some(message) = body.get(..length) else {
                break;
            };
            found.push(parsed(message.as_bytes()));
            rest = &body[length..];
        }
        found
    }

    /// The `number`th message that `is` so.
    #[track_caller]
    fn wait(&self, what: &str, number: usize, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let told = self.told();
            if let Some(found) = told.iter().filter(|message| is(message)).nth(number) {
                return found.clone();
            }
            assert!(Instant::now() < deadline, "no {what}: {told:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn event(&self, name: &str, number: usize) -> Value {
        self.wait(name, number, |told| told["event"] == name)
    }

    /// What a question is answered.
    fn ask(&mut self, command: &str, arguments: &Value) -> Value {
        self.asked += 1;
        let seq = self.asked;
        let question =
            json!({"seq": seq, "type": "request", "command": command, "arguments": arguments});
        let question = question.to_string();
        write!(
            self.keys,
            "Content-Length: {}\r\n\r\n{question}",
            question.len()
        )
        .expect("it listens");
        // A launch is answered when the build may begin, which another question says.
        if command == "launch" {
            return Value::Null;
        }
        let answer = self.wait(command, 0, |told| told["request_seq"] == seq);
        assert_eq!(answer["success"], true, "{answer}");
        answer["body"].clone()
    }

    /// Where it stands: the name and line of the step, and what its scopes are called.
    fn stands(&mut self) -> (String, Vec<String>) {
        let threads = self.ask("threads", &json!({}));
        let thread = &threads["threads"][0]["id"];
        let stack = self.ask("stackTrace", &json!({"threadId": thread}));
        let frame = &stack["stackFrames"][0];
        let scopes = self.ask("scopes", &json!({"frameId": frame["id"]}));
        let mut seen = Vec::new();
        for scope in scopes["scopes"].as_array().expect("scopes") {
            let inside = json!({"variablesReference": scope["variablesReference"]});
            let inside = self.ask("variables", &inside);
            let names = inside["variables"].as_array().expect("variables").iter();
            let names: Vec<_> = names.map(|one| one["name"].to_string()).collect();
            seen.push(format!("{} {}", scope["name"], names.join(",")));
        }
        (format!("{} at {}", frame["name"], frame["line"]), seen)
    }
}

/// An editor steps through a Dockerfile, and sees with kiln what it sees with BuildKit.
///
/// Rows: A16, G09
#[test]
fn an_editor_steps_through_a_dockerfile() {
    let Some(stop) = Stop::at("dap") else {
        return;
    };
    stop.dockerfile("FROM scratch AS one\nCOPY Dockerfile /a\nFROM one\nARG WORD=w\nENV X=$WORD\nCOPY Dockerfile /b\n");
    let walked = Who::BOTH.map(|who| {
        let mut editor = Editor::open(&stop, who);
        let hello = json!({"clientID": "t", "adapterID": "buildx", "linesStartAt1": true, "columnsStartAt1": true, "pathFormat": "path"});
        let able = editor.ask("initialize", &hello);
        let launch = json!({
            "dockerfile": stop.path("ctx/Dockerfile"),
            "contextPath": stop.path("ctx"),
            "stopOnEntry": true,
        });
        editor.ask("launch", &launch);
        editor.event("initialized", 0);
        editor.ask("configurationDone", &json!({}));
        let mut seen = Vec::new();
        for step in 0..2 {
            editor.event("stopped", step);
            seen.push(editor.stands());
            let thread = json!({"threadId": 1});
            editor.ask(if step == 0 { "next" } else { "continue" }, &thread);
        }
        editor.event("terminated", 0);
        let debugger = editor.debugger.take().expect("it runs");
        drop(editor);
        debugger.wait().ok();
        (able, seen)
    });
    assert_eq!(walked[1], walked[0]);
    let (_, seen) = &walked[1];
    assert!(
        seen[0].0.contains("COPY Dockerfile /a") && seen[0].0.ends_with("at 2"),
        "{seen:?}"
    );
    assert!(
        seen[1].0.contains("COPY Dockerfile /b") && seen[1].0.ends_with("at 6"),
        "{seen:?}"
    );
}

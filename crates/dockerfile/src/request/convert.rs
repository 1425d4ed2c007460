//! A definition as JSON: for each digest its op, in the names of the wire. 64-bit
//! numbers are strings and what is zero is left out, as protobuf's JSON has it.

mod exec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use llb::{Definition, Graph, OpKind};
use serde_json::{Map, Value, json};

/// An object without what is zero.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn value(mut self, key: &str, value: Option<Value>) -> Object {
        if let Some(value) = value {
            self.0.insert(key.into(), value);
        }
        self
    }

    fn text(self, key: &str, value: &str) -> Object {
        self.value(key, (!value.is_empty()).then(|| value.into()))
    }

    fn flag(self, key: &str, value: bool) -> Object {
        self.value(key, value.then(|| true.into()))
    }

    fn small(self, key: &str, value: i64) -> Object {
        self.value(key, (value != 0).then(|| value.into()))
    }

    fn big(self, key: &str, value: i64) -> Object {
        self.value(key, (value != 0).then(|| value.to_string().into()))
    }

    /// Numbers of inputs and outputs: none is -1.
    fn number(self, key: &str, value: Option<u32>) -> Object {
        self.big(key, value.map_or(-1, i64::from))
    }

    fn list(self, key: &str, values: &[String]) -> Object {
        self.value(key, (!values.is_empty()).then(|| json!(values)))
    }

    fn values(self, key: &str, values: impl Iterator<Item = Value>) -> Object {
        let values: Vec<Value> = values.collect();
        self.value(key, (!values.is_empty()).then_some(Value::Array(values)))
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

fn object() -> Object {
    Object::default()
}

/// The answer of `frontend.convertllb`.
pub(super) fn definition(definition: &Definition) -> Result<Value, llb::Error> {
    let graph = Graph::load(definition)?;
    let mut def = Map::new();
    for vertex in graph.vertices() {
        def.insert(vertex.digest.to_string(), op(&vertex.op));
    }
    if let (Some(last), Some(root)) = (definition.def.last(), definition.head()?) {
        def.insert(
            oci::Digest::of(last).to_string(),
            json!({ "inputs": [edge(&root)] }),
        );
    }
    let mut answer = json!({ "def": def, "metadata": metadata(definition) });
    if definition.source.is_some() {
        answer["source"] = source(definition);
    }
    Ok(answer)
}

/// A definition inside of another answer: ops stay bytes.
pub(super) fn embedded(definition: &Definition) -> Value {
    let def: Vec<String> = definition
        .def
        .iter()
        .map(|bytes| STANDARD.encode(bytes))
        .collect();
    let mut answer = json!({ "def": def, "metadata": metadata(definition) });
    if definition.source.is_some() {
        answer["Source"] = source(definition);
    }
    answer
}

fn metadata(definition: &Definition) -> Value {
    let one = |m: &llb::Metadata| {
        let group = m.progress_group.as_ref();
        let group = group.map(|g| {
            object()
                .text("id", &g.id)
                .text("name", &g.name)
                .flag("weak", g.weak)
                .done()
        });
        object()
            .flag("ignore_cache", m.ignore_cache)
            .value(
                "description",
                (!m.description.is_empty()).then(|| json!(m.description)),
            )
            .value(
                "export_cache",
                m.export_cache.map(|e| object().flag("Value", e).done()),
            )
            .value("caps", (!m.caps.is_empty()).then(|| json!(m.caps)))
            .value("progress_group", group)
            .done()
    };
    let all = definition
        .metadata
        .iter()
        .map(|(digest, m)| (digest.to_string(), one(m)));
    Value::Object(all.collect())
}

fn source(definition: &Definition) -> Value {
    let Some(source) = &definition.source else {
        return Value::Null;
    };
    let position = |p: llb::Position| {
        object()
            .small("line", p.line.into())
            .small("character", p.character.into())
            .done()
    };
    let range = |r: &llb::Range| json!({ "start": position(r.start), "end": position(r.end) });
    let location = |l: &llb::Location| {
        object()
            .small("sourceIndex", l.source.into())
            .values("ranges", l.ranges.iter().map(range))
            .done()
    };
    let locations = source.locations.iter().map(|(digest, list)| {
        (
            digest.to_string(),
            object()
                .values("locations", list.iter().map(location))
                .done(),
        )
    });
    let infos = source.infos.iter().map(|info| {
        object()
            .text("filename", &info.filename)
            .text("data", &STANDARD.encode(&info.data))
            .value("definition", info.definition.as_ref().map(|d| embedded(d)))
            .text("language", &info.language)
            .done()
    });
    object()
        .value("locations", Some(Value::Object(locations.collect())))
        .values("infos", infos)
        .done()
}

fn edge(edge: &llb::Edge) -> Value {
    object()
        .text("digest", &edge.digest.to_string())
        .big("index", edge.index.into())
        .done()
}

fn op(op: &llb::Op) -> Value {
    let attrs = |attrs: &std::collections::BTreeMap<String, String>| {
        (!attrs.is_empty()).then(|| json!(attrs))
    };
    let body = match &op.kind {
        OpKind::Exec(e) => exec::exec(e),
        OpKind::Source(s) => object()
            .text("identifier", &s.identifier)
            .value("attrs", attrs(&s.attrs))
            .done(),
        OpKind::File(f) => object()
            .values("actions", f.actions.iter().map(action))
            .done(),
        OpKind::Merge(m) => {
            let input = |i: &Option<u32>| object().number("input", *i).done();
            object().values("inputs", m.inputs.iter().map(input)).done()
        }
        OpKind::Diff(d) => {
            let input = |i: Option<u32>| Some(object().number("input", i).done());
            object()
                .value("lower", input(d.lower))
                .value("upper", input(d.upper))
                .done()
        }
        OpKind::Build(b) => {
            let inputs = b
                .inputs
                .iter()
                .map(|(k, i)| (k.clone(), object().big("input", *i).done()));
            let inputs = Value::Object(inputs.collect());
            object()
                .big("builder", b.builder)
                .value("inputs", Some(inputs))
                .value("def", b.definition.as_ref().map(embedded))
                .value("attrs", attrs(&b.attrs))
                .done()
        }
        OpKind::Passthrough(p) => {
            let output = |o: &Option<u32>| object().number("input", *o).done();
            object()
                .text("id", &p.id)
                .values("outputs", p.outputs.iter().map(output))
                .done()
        }
    };
    let platform = op.platform.as_ref().map(|p| {
        object()
            .text("Architecture", &p.architecture)
            .text("OS", &p.os)
            .text("Variant", &p.variant)
            .text("OSVersion", &p.os_version)
            .list("OSFeatures", &p.os_features)
            .done()
    });
    let constraints = op
        .constraints
        .as_ref()
        .map(|filter| object().list("filter", filter).done());
    object()
        .values("inputs", op.inputs.iter().map(edge))
        .value(op.kind.name(), Some(body))
        .value("platform", platform)
        .value("constraints", constraints)
        .done()
}

fn action(action: &llb::Action) -> Value {
    let (name, body) = match &action.kind {
        llb::ActionKind::Copy(c) => ("copy", copy(c)),
        llb::ActionKind::Mkfile(m) => (
            "mkfile",
            object()
                .text("path", &m.path)
                .small("mode", m.mode.into())
                .text("data", &STANDARD.encode(&m.data))
                .value("owner", owner(&m.owner))
                .big("timestamp", m.timestamp.unwrap_or(-1))
                .done(),
        ),
        llb::ActionKind::Mkdir(m) => (
            "mkdir",
            object()
                .text("path", &m.path)
                .small("mode", m.mode.into())
                .flag("makeParents", m.make_parents)
                .value("owner", owner(&m.owner))
                .big("timestamp", m.timestamp.unwrap_or(-1))
                .done(),
        ),
        llb::ActionKind::Rm(r) => (
            "rm",
            object()
                .text("path", &r.path)
                .flag("allowNotFound", r.allow_not_found)
                .flag("allowWildcard", r.allow_wildcard)
                .done(),
        ),
        llb::ActionKind::Symlink(s) => (
            "symlink",
            object()
                .text("oldpath", &s.target)
                .text("newpath", &s.path)
                .value("owner", owner(&s.owner))
                .big("timestamp", s.timestamp.unwrap_or(-1))
                .done(),
        ),
    };
    object()
        .number("input", action.input)
        .number("secondaryInput", action.secondary)
        .number("output", action.output)
        .value(name, Some(body))
        .done()
}

fn copy(copy: &llb::Copy) -> Value {
    let (mode, text) = match &copy.mode {
        llb::Mode::Keep => (-1, ""),
        llb::Mode::Bits(bits) => (i64::from(*bits), ""),
        llb::Mode::Symbolic(text) => (0, text.as_str()),
    };
    object()
        .text("src", &copy.src)
        .text("dest", &copy.dest)
        .value("owner", owner(&copy.owner))
        .small("mode", mode)
        .flag("followSymlink", copy.follow_symlink)
        .flag("dirCopyContents", copy.dir_copy_contents)
        .flag("attemptUnpackDockerCompatibility", copy.attempt_unpack)
        .flag("createDestPath", copy.create_dest_path)
        .flag("allowWildcard", copy.allow_wildcard)
        .flag("allowEmptyWildcard", copy.allow_empty_wildcard)
        .big("timestamp", copy.timestamp.unwrap_or(-1))
        .list("includePatterns", &copy.include)
        .list("excludePatterns", &copy.exclude)
        .flag("alwaysReplaceExistingDestPaths", copy.always_replace)
        .text("modeStr", text)
        .list("requiredPaths", &copy.required_paths)
        .done()
}

fn owner(owner: &Option<llb::Chown>) -> Option<Value> {
    let user = |user: &Option<llb::User>| {
        user.as_ref().map(|user| match user {
            llb::User::Id(id) => json!({ "byID": id }),
            llb::User::Name { name, input } => {
                json!({ "byName": object().text("name", name).big("input", *input).done() })
            }
        })
    };
    owner.as_ref().map(|o| {
        object()
            .value("user", user(&o.user))
            .value("group", user(&o.group))
            .done()
    })
}

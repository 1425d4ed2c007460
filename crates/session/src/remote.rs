//! A client's offers over the wire, as the daemon calls them.

mod blobs;
mod files;
mod policy;
mod small;

use std::sync::Arc;

use tonic::transport::Channel;

use crate::Attachables;
use crate::tunnel::Hello;

pub use blobs::RemoteStore;
pub(crate) use blobs::STORE;
pub(crate) use policy::METHOD as CHECK_POLICY;

/// What a client offers, by the methods it says it serves.
pub(crate) fn offers(hello: &Hello, channel: &Channel) -> Attachables {
    let serves = |method: &str| hello.serves(method);
    Attachables {
        file_sync: serves("/moby.filesync.v1.FileSync/DiffCopy")
            .then(|| Arc::new(files::RemoteFiles(channel.clone())) as _),
        file_send: serves("/moby.filesync.v1.FileSend/DiffCopy")
            .then(|| Arc::new(files::RemoteFiles(channel.clone())) as _),
        auth: serves("/moby.filesync.v1.Auth/Credentials")
            .then(|| Arc::new(small::RemoteAuth::new(channel.clone())) as _),
        secrets: serves("/moby.buildkit.secrets.v1.Secrets/GetSecret")
            .then(|| Arc::new(small::RemoteSecrets(channel.clone())) as _),
        ssh: serves("/moby.sshforward.v1.SSH/ForwardAgent")
            .then(|| Arc::new(small::RemoteSsh(channel.clone())) as _),
        content: serves("/containerd.services.content.v1.Content/Read")
            .then(|| Arc::new(blobs::RemoteStores(channel.clone())) as _),
        upload: serves("/moby.upload.v1.Upload/Pull")
            .then(|| Arc::new(small::RemoteUpload(channel.clone())) as _),
        exporters: serves("/moby.exporter.v1.Exporter/FindExporters")
            .then(|| Arc::new(small::RemoteExporters(channel.clone())) as _),
        policies: serves(policy::METHOD)
            .then(|| Arc::new(policy::RemotePolicies(channel.clone())) as _),
        dirs: None,
        targets: None,
    }
}

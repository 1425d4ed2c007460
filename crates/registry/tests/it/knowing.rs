//! Who knows passwords, by the suite all of them run.

mod anonymous {
    use registry::testing::Known;
    use registry::{Anonymous, Credentials};

    async fn nobody(_: Option<Known>) -> Box<dyn Credentials> {
        Box::new(Anonymous)
    }

    registry::credentials_suite!(nobody nobody);
}

mod docker_config {
    use base64::Engine as _;
    use registry::Credentials;
    use registry::docker_config::DockerConfig;
    use registry::testing::Known;

    async fn file(known: Option<Known>) -> Box<dyn Credentials> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        if let Some((host, user, password)) = known {
            let auth =
                base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            let text = format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#);
            std::fs::write(&path, text).unwrap();
        }
        Box::new(DockerConfig::read(&[path]).unwrap())
    }

    registry::credentials_suite!(file);
}

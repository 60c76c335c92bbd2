//! Where the services are that a task needs before it starts, and where its `awslogs` containers write to.
//!
//! Enters: `--endpoint SERVICE=URL` or `--endpoint URL`, and the environment as AWS's SDKs read it. Leaves: an address for
//! each service. Can go wrong: an address that is none, a service that is not called.
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>

use std::collections::BTreeMap;

/// A service that is called.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Service {
    /// Secrets Manager.
    SecretsManager,
    /// Systems Manager, for its Parameter Store.
    Ssm,
    /// S3.
    S3,
    /// Security Token Service, for roles.
    Sts,
    /// CloudWatch Logs, for the `awslogs` driver.
    Logs,
}

const ALL: [Service; 5] = [Service::SecretsManager, Service::Ssm, Service::S3, Service::Sts, Service::Logs];

impl Service {
    /// Its name in addresses, signatures and `--endpoint`.
    pub fn name(self) -> &'static str {
        match self {
            Service::SecretsManager => "secretsmanager",
            Service::Ssm => "ssm",
            Service::S3 => "s3",
            Service::Sts => "sts",
            Service::Logs => "logs",
        }
    }

    /// What AWS's SDKs call it in `AWS_ENDPOINT_URL_...`.
    fn variable(self) -> &'static str {
        match self {
            Service::SecretsManager => "AWS_ENDPOINT_URL_SECRETS_MANAGER",
            Service::Ssm => "AWS_ENDPOINT_URL_SSM",
            Service::S3 => "AWS_ENDPOINT_URL_S3",
            Service::Sts => "AWS_ENDPOINT_URL_STS",
            Service::Logs => "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS",
        }
    }
}

/// Addresses in place of AWS's own.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Endpoints(BTreeMap<Service, String>);

impl Endpoints {
    /// Reads flags and environment. What names a service wins over what is for all, and a flag over the environment; then
    /// the last of two flags wins. `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true` hides the environment's.
    ///
    /// # Errors
    /// What is no address, or no service.
    pub fn read(flags: &[String], env: impl Fn(&str) -> Option<String>) -> Result<Endpoints, String> {
        let ignored =
            env("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let of_env = |name: &str| -> Result<Option<String>, String> {
            let value = env(name).filter(|v| !ignored && !v.is_empty());
            value.map(|v| address(&v).map_err(|e| format!("{name}: {e}"))).transpose()
        };
        let mut found = BTreeMap::new();
        let mut fill = |service: Option<Service>, url: Option<String>| {
            let Some(url) = url else { return };
            let services = ALL.into_iter().filter(|s| service.is_none_or(|one| one == *s));
            found.extend(services.map(|s| (s, url.clone())));
        };
        // Each overrides those before it.
        fill(None, of_env("AWS_ENDPOINT_URL")?);
        for service in ALL {
            fill(Some(service), of_env(service.variable())?);
        }
        let flags = flags.iter().map(|flag| flagged(flag)).collect::<Result<Vec<_>, String>>()?;
        for (service, url) in flags.iter().filter(|(service, _)| service.is_none()) {
            fill(*service, Some(url.clone()));
        }
        for (service, url) in flags.into_iter().filter(|(service, _)| service.is_some()) {
            fill(service, Some(url));
        }
        Ok(Endpoints(found))
    }

    /// An address that was set, without a slash at its end.
    pub fn set(&self, service: Service) -> Option<&str> {
        self.0.get(&service).map(String::as_str)
    }

    /// Where it is: as set, or AWS's own in the region.
    pub(super) fn of(&self, service: Service, region: &str) -> String {
        let end = if region.starts_with("cn-") { ".cn" } else { "" };
        let own = || format!("https://{}.{region}.amazonaws.com{end}", service.name());
        self.set(service).map_or_else(own, str::to_owned)
    }
}

fn flagged(flag: &str) -> Result<(Option<Service>, String), String> {
    if flag.starts_with("http://") || flag.starts_with("https://") {
        return Ok((None, address(flag)?));
    }
    let names = ALL.map(Service::name).join(", ");
    let (name, url) =
        flag.split_once('=').ok_or_else(|| format!("{flag:?} is neither URL nor SERVICE=URL ({names})"))?;
    let service = ALL.into_iter().find(|s| s.name() == name);
    let service =
        service.ok_or_else(|| format!("{name:?} is no service that has an endpoint; there are {names}"))?;
    Ok((Some(service), address(url)?))
}

fn address(url: &str) -> Result<String, String> {
    let bad = |what: &str| format!("{url:?} is no address: {what}; it is http://HOST:PORT or https://HOST");
    let uri: http::Uri = url.parse().map_err(|e| bad(&format!("{e}")))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(bad("it begins with neither http:// nor https://"));
    }
    if uri.host().is_none_or(str::is_empty) || uri.query().is_some() {
        return Err(bad("it must be a host, a port and a path"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &[&str], env: &[(&str, &str)]) -> Result<Endpoints, String> {
        let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
        Endpoints::read(&flags, |name| {
            env.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_a_named_service_over_all() {
        let env = [("AWS_ENDPOINT_URL", "http://e:1"), ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://e:2/")];
        let found = read(&[], &env).unwrap();
        let of = |found: &Endpoints, service| found.of(service, "eu-west-1");
        assert_eq!(of(&found, Service::Ssm), "http://e:1");
        assert_eq!(of(&found, Service::SecretsManager), "http://e:2");
        let found = read(&["s3=http://f:3", "http://f:1"], &env).unwrap();
        assert_eq!(of(&found, Service::SecretsManager), "http://f:1");
        assert_eq!(of(&found, Service::S3), "http://f:3");
        let ignored = [env[0], ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")];
        assert_eq!(read(&[], &ignored).unwrap(), Endpoints::default());
    }

    #[test]
    fn what_is_not_set_is_awss_own() {
        let none = Endpoints::default();
        assert_eq!(
            none.of(Service::SecretsManager, "eu-west-1"),
            "https://secretsmanager.eu-west-1.amazonaws.com"
        );
        assert_eq!(none.of(Service::S3, "cn-north-1"), "https://s3.cn-north-1.amazonaws.com.cn");
        assert_eq!(none.set(Service::Sts), None);
    }

    #[test]
    fn mistakes_are_said() {
        for (flag, what) in [
            ("kinesis=http://x", "there are secretsmanager, ssm, s3, sts, logs"),
            ("localhost:5000", "neither URL nor SERVICE=URL"),
            ("s3=localhost:5000", "neither http:// nor https://"),
            ("s3=http://x/?a=b", "must be a host"),
            ("http://", "no address"),
        ] {
            let e = read(&[flag], &[]).unwrap_err();
            assert!(e.contains(what), "{flag}: {e}");
        }
        let e = read(&[], &[("AWS_ENDPOINT_URL_S3", "nothing")]).unwrap_err();
        assert!(e.starts_with("AWS_ENDPOINT_URL_S3: "), "{e}");
    }
}

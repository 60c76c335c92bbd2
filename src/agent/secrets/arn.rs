//! Where a secret or a file is, by its ARN.
//!
//! Enters: `valueFrom`, `environmentFiles[].value`, `config-file-value`. Leaves: service, region, names. Can go wrong: an ARN
//! that is none, or of another service; the words are the ECS agent's where it has some.

/// Where a secret is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Place {
    /// Secrets Manager: what is asked for, and the JSON key of the answer.
    Manager {
        of: Secret,
        /// Of the JSON object that the secret is.
        key: Option<String>,
    },
    /// SSM Parameter Store.
    Parameter {
        region: String,
        /// As SSM knows it, `:VERSION` or `:LABEL` at its end if one was asked for.
        name: String,
        /// What it was made from, if that was an ARN.
        arn: Option<String>,
    },
}

/// A version of a secret of Secrets Manager.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Secret {
    pub(super) region: String,
    /// An ARN, or a name where ECS takes one.
    pub(super) id: String,
    /// `AWSCURRENT` unless it is set.
    pub(super) stage: Option<String>,
    pub(super) version: Option<String>,
}

/// An object of S3.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Object {
    pub(super) bucket: String,
    pub(super) key: String,
}

/// Reads a `valueFrom`. What is no ARN is a parameter of `region`.
pub(super) fn place(value_from: &str, region: &str) -> Result<Place, String> {
    if !value_from.starts_with("arn:") {
        let (region, name) = (region.to_owned(), value_from.to_owned());
        return Ok(Place::Parameter { region, name, arn: None });
    }
    let mut parts = value_from.splitn(6, ':').skip(2);
    let (service, region) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let resource = parts.nth(1).unwrap_or_default();
    if !is_region(region) {
        return Err(format!("{value_from} is the ARN of no region"));
    }
    match service {
        "secretsmanager" => manager(value_from, region, resource),
        "ssm" => {
            let path = resource.strip_prefix("parameter/").filter(|path| !path.is_empty());
            let path = path.ok_or_else(|| format!("{value_from} is not the ARN of a parameter"))?;
            // Only names with a path begin with a slash, and an ARN does not tell it twice.
            let name = if path.contains('/') { format!("/{path}") } else { path.to_owned() };
            Ok(Place::Parameter { region: region.to_owned(), name, arn: Some(value_from.to_owned()) })
        }
        other => Err(format!(
            "{value_from} is an ARN of {other:?}; secrets are in secretsmanager or ssm, and a parameter of \
             the task's own region can stand there by its name"
        )),
    }
}

/// `secret:ID`, or `secret:ID:JSON-KEY:VERSION-STAGE:VERSION-ID`, where all three may be empty.
fn manager(arn: &str, region: &str, resource: &str) -> Result<Place, String> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let parts: Vec<&str> = resource.split(':').collect();
    let (id, key, stage, version) = match parts[..] {
        ["secret", name] if !name.is_empty() => (arn.to_owned(), None, None, None),
        ["secret", name, key, stage, version] if !name.is_empty() => {
            let more = key.len() + stage.len() + version.len() + 3;
            let id = arn.get(..arn.len() - more).unwrap_or_default().to_owned();
            (id, some(key), some(stage), some(version))
        }
        _ => {
            return Err(format!(
                "trying to retrieve secret with value {arn} resulted in error: an invalid ARN format for the AWS \
                 Secrets Manager secret was specified. Specify a valid ARN and try again. \
                 (It is arn:...:secret:NAME, or arn:...:secret:NAME:JSON-KEY:VERSION-STAGE:VERSION-ID)"
            ));
        }
    };
    let of = Secret { region: region.to_owned(), id, stage, version };
    Ok(Place::Manager { of, key })
}

/// Reads the ARN of an object of S3, which has neither region nor account.
pub(super) fn object(arn: &str) -> Result<Object, String> {
    let found = arn.strip_prefix("arn:").and_then(|rest| rest.split_once(":s3:::")).and_then(|(_, path)| {
        let (bucket, key) = path.split_once('/')?;
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let whole = !bucket.is_empty() && bucket.chars().all(good) && !key.is_empty();
        whole.then(|| Object { bucket: bucket.to_owned(), key: key.to_owned() })
    });
    found.ok_or_else(|| format!("invalid s3 arn: {arn}; it is arn:aws:s3:::BUCKET/KEY"))
}

/// It becomes a part of a host's name.
pub(super) fn is_region(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 40 && text.chars().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:db-AbCdEf";

    fn manager(text: &str) -> (Secret, Option<String>) {
        match place(text, "us-east-1") {
            Ok(Place::Manager { of, key }) => (of, key),
            other => panic!("{other:?}"),
        }
    }

    fn parameter(text: &str) -> (String, String) {
        match place(text, "us-east-1") {
            Ok(Place::Parameter { region, name, .. }) => (region, name),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_secret_is_named_whole_or_by_key_stage_and_version() {
        let plain = Secret { region: "eu-west-1".into(), id: ARN.into(), stage: None, version: None };
        assert_eq!(manager(ARN), (plain.clone(), None));
        assert_eq!(manager(&format!("{ARN}:password::")), (plain.clone(), Some("password".into())));
        assert_eq!(manager(&format!("{ARN}:::")), (plain.clone(), None));
        let previous = Secret { stage: Some("AWSPREVIOUS".into()), ..plain.clone() };
        assert_eq!(manager(&format!("{ARN}::AWSPREVIOUS:")), (previous, None));
        let exact = Secret { version: Some("9d4c".into()), ..plain };
        assert_eq!(manager(&format!("{ARN}:user::9d4c")), (exact, Some("user".into())));
    }

    #[test]
    fn a_parameter_is_named_by_arn_or_in_the_tasks_own_region() {
        let arn = "arn:aws:ssm:eu-west-1:111122223333:parameter";
        assert_eq!(parameter("token"), ("us-east-1".into(), "token".into()));
        assert_eq!(parameter("/shop/token:3"), ("us-east-1".into(), "/shop/token:3".into()));
        assert_eq!(parameter(&format!("{arn}/token")), ("eu-west-1".into(), "token".into()));
        assert_eq!(parameter(&format!("{arn}/shop/token")), ("eu-west-1".into(), "/shop/token".into()));
    }

    #[test]
    fn what_is_no_secret_is_said() {
        for bad in [&format!("{ARN}:password"), &format!("{ARN}:a:b:c:d"), &ARN.replace("secret:", "key:")] {
            assert!(place(bad, "us-east-1").unwrap_err().contains("invalid ARN format"), "{bad}");
        }
        for bad in [
            "arn:aws:ssm:eu-west-1:111122223333:parameter",
            "arn:aws:s3:::bucket/key",
            "arn:aws:kms:eu-west-1:111122223333:key/x",
            "arn:aws:ssm:evil.example/:1:parameter/x",
            "arn:",
        ] {
            assert!(place(bad, "us-east-1").unwrap_err().contains(bad), "{bad}");
        }
    }

    #[test]
    fn an_object_has_a_bucket_and_a_key() {
        let found = object("arn:aws-cn:s3:::my.bucket/a/b c.env").unwrap();
        assert_eq!((found.bucket.as_str(), found.key.as_str()), ("my.bucket", "a/b c.env"));
        for bad in
            ["arn:aws:s3:::bucket", "arn:aws:s3:::/key", "arn:aws:s3:::b/", "s3://b/k", "arn:aws:s3:::b?/k"]
        {
            assert!(object(bad).unwrap_err().contains("arn:aws:s3:::BUCKET/KEY"), "{bad}");
        }
    }
}

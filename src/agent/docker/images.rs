//! Images: pulled when they are missing, and the one that is made here.
//!
//! Enters: a name. Leaves: the image is there. Can go wrong: the registry does, in docker's words.

use super::api::Api;
use super::pause;
use crate::agent::runtime::Failure;
use crate::record::Time;

/// Pulls an image unless the engine has it. `registry`: user and password. Gives when a pull began and ended, in milliseconds
/// since 1970.
///
/// # Errors
/// `CannotPullContainerError`
pub(super) async fn ensure(
    api: &Api,
    image: &str,
    registry: Option<&(String, String)>,
) -> Result<Option<(i64, i64)>, Failure> {
    let full = reference(image)?;
    if api.has_image(image).await? {
        return Ok(None);
    }
    let began = Time::now().millis();
    api.pull(&full, registry).await?;
    Ok(Some((began, Time::now().millis())))
}

/// The image of pause containers.
///
/// # Errors
/// `CannotPullContainerError`
pub(super) async fn pause(api: &Api) -> Result<(), Failure> {
    let name = format!("{}:{}", pause::REPOSITORY, pause::TAG);
    if !api.has_image(&name).await? {
        let tar = pause::image().map_err(|e| Failure::new("CannotPullContainerError", e))?;
        api.import(pause::REPOSITORY, pause::TAG, tar).await?;
    }
    Ok(())
}

/// A name with its tag: without one docker would pull all tags. It becomes part of a URL.
fn reference(image: &str) -> Result<String, Failure> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-/:@[]".contains(c);
    let parts = image.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if !image.chars().all(good) || !parts {
        let text = format!("Error response from daemon: invalid reference format: {image:?}");
        return Err(Failure::new("CannotPullContainerError", text));
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    Ok(if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_is_the_latest_and_no_name_leaves_its_place_in_the_url() {
        let full = |image: &str| reference(image).map_err(|e| e.name);
        assert_eq!(full("busybox").unwrap(), "busybox:latest");
        assert_eq!(full("localhost:5000/a/b").unwrap(), "localhost:5000/a/b:latest");
        assert_eq!(full("a/b:1").unwrap(), "a/b:1");
        assert_eq!(full("a@sha256:00").unwrap(), "a@sha256:00");
        for bad in ["", "a b", "a?x", "../containers", "a//b", "a#", "/a", "a%2f"] {
            assert_eq!(full(bad), Err("CannotPullContainerError".to_owned()), "{bad}");
        }
    }
}

//! The flags that name issuers of ID tokens, as kube-apiserver has them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use apiserver::oidc::Issuer;
use apiserver::oidc::configuration::{Flags, issuers};
use clap::Args;

/// Users of an issuer outside the cluster.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "OpenID Connect")]
pub struct Oidc {
    /// The https URL of the issuer whose ID tokens are accepted.
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    oidc_issuer_url: Option<String>,
    /// Tokens must be for this client.
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// The claim that names the user; sub unless given.
    #[arg(long, value_name = "CLAIM", requires = "oidc_issuer_url")]
    oidc_username_claim: Option<String>,
    /// What is put before users' names; - for nothing, URL# unless given.
    #[arg(long, value_name = "PREFIX", requires = "oidc_issuer_url")]
    oidc_username_prefix: Option<String>,
    /// The claim that names the user's groups.
    #[arg(long, value_name = "CLAIM", requires = "oidc_issuer_url")]
    oidc_groups_claim: Option<String>,
    /// What is put before groups' names.
    #[arg(long, value_name = "PREFIX", requires = "oidc_issuer_url")]
    oidc_groups_prefix: Option<String>,
    /// A claim that tokens must have with this value; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', requires = "oidc_issuer_url")]
    oidc_required_claim: Vec<String>,
    /// How tokens may be signed; RS256 unless given.
    #[arg(long, value_name = "ALG", value_delimiter = ',', requires = "oidc_issuer_url")]
    oidc_signing_algs: Vec<String>,
    /// Certificates that vouch for the issuer's server; the host's own unless given.
    #[arg(long, value_name = "FILE", requires = "oidc_issuer_url")]
    oidc_ca_file: Option<PathBuf>,
    /// A file with an AuthenticationConfiguration, in the place of the flags.
    #[arg(long, value_name = "FILE", conflicts_with = "oidc_issuer_url")]
    authentication_config: Option<PathBuf>,
}

// === impl Oidc ===

impl Oidc {
    /// The issuers that the flags name.
    ///
    /// # Errors
    /// When a file cannot be read, or a value is not acceptable.
    pub fn issuers(&self) -> Result<Vec<Issuer>> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
        };
        if let Some(path) = &self.authentication_config {
            return issuers(&read(path)?).with_context(|| format!("in {}", path.display()));
        }
        let Some(url) = &self.oidc_issuer_url else { return Ok(Vec::new()) };
        let flags = Flags {
            issuer_url: url.clone(),
            client_id: self.oidc_client_id.clone().unwrap_or_default(),
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: self.oidc_username_prefix.clone(),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            required_claims: self.oidc_required_claim.clone(),
            signing_algorithms: self.oidc_signing_algs.clone(),
            authority: self.oidc_ca_file.as_deref().map(read).transpose()?,
        };
        Ok(vec![flags.issuer()?])
    }

    /// The same as arguments, for a server in a process of its own.
    pub fn arguments(&self) -> Vec<OsString> {
        let text = |value: &Option<String>| value.as_ref().map(OsString::from);
        let path = |value: &Option<PathBuf>| value.as_ref().map(|path| path.clone().into_os_string());
        let single = [
            ("--oidc-issuer-url", text(&self.oidc_issuer_url)),
            ("--oidc-client-id", text(&self.oidc_client_id)),
            ("--oidc-username-claim", text(&self.oidc_username_claim)),
            ("--oidc-username-prefix", text(&self.oidc_username_prefix)),
            ("--oidc-groups-claim", text(&self.oidc_groups_claim)),
            ("--oidc-groups-prefix", text(&self.oidc_groups_prefix)),
            ("--oidc-ca-file", path(&self.oidc_ca_file)),
            ("--authentication-config", path(&self.authentication_config)),
        ];
        let several = [
            ("--oidc-required-claim", &self.oidc_required_claim),
            ("--oidc-signing-algs", &self.oidc_signing_algs),
        ];
        let joined = |flag: &str, value: OsString| {
            let mut argument = OsString::from(flag);
            argument.push("=");
            argument.push(value);
            argument
        };
        let mut arguments: Vec<OsString> =
            single.into_iter().filter_map(|(flag, value)| Some(joined(flag, value?))).collect();
        for (flag, values) in several {
            arguments.extend(values.iter().map(|value| joined(flag, value.into())));
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        oidc: Oidc,
    }

    #[test]
    fn a_server_of_its_own_is_told_the_same() {
        let given = [
            "x",
            "--oidc-issuer-url=https://login.example.com",
            "--oidc-client-id=cluster",
            "--oidc-username-prefix=-",
            "--oidc-required-claim=a=b,c=d",
        ];
        let oidc = Command::parse_from(given).oidc;
        let told = Command::parse_from([OsString::from("x")].into_iter().chain(oidc.arguments())).oidc;
        let issuers = oidc.issuers().expect("issuers");
        assert_eq!(issuers[0].username.prefix, "");
        assert_eq!(issuers[0].required["c"], "d");
        assert_eq!(told.issuers().expect("issuers"), issuers);
    }
}

//! Converts the connection into the driver's configuration.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use tokio_postgres::Config;
use tokio_postgres::config::{LoadBalanceHosts, SslMode as DriverMode, SslNegotiation};

use super::ConnectOptions;
use super::host::{Host, HostPort};
use super::security::SslMode;

impl ConnectOptions {
    /// Returns one driver configuration for each host, in the order to try them.
    ///
    /// As in libpq, each host has its own password from the password file, and a Unix socket is used
    /// without TLS. With `load_balance_hosts=random` the order differs from call to call. The driver
    /// applies `connect_timeout` only to the socket, libpq also to the login, so the caller must limit
    /// each attempt by [`ConnectOptions::connect_timeout`].
    pub fn attempts(&self) -> Vec<Config> {
        let mut attempts: Vec<Config> =
            (0..self.targets.len()).map(|index| self.attempt(index)).collect();
        if self.common.get_load_balance_hosts() == LoadBalanceHosts::Random {
            let mut keyed: Vec<(u64, Config)> = attempts
                .into_iter()
                .enumerate()
                .map(|(index, attempt)| (RandomState::new().hash_one(index), attempt))
                .collect();
            keyed.sort_by_key(|(key, _)| *key);
            attempts = keyed.into_iter().map(|(_, attempt)| attempt).collect();
        }
        attempts
    }

    /// Returns one driver configuration for the first host and those that share its settings.
    ///
    /// The driver accepts one password and one TLS mode for all hosts; use [`ConnectOptions::attempts`]
    /// to try every host.
    pub fn to_driver(&self) -> Config {
        let mut config = self.attempt(0);
        for index in 1..self.targets.len() {
            let target = &self.targets[index];
            if self.driver_mode(target) == config.get_ssl_mode()
                && self.passwords[index] == self.passwords[0]
                && matches!(target.host, Host::Address { .. }) == !config.get_hostaddrs().is_empty()
            {
                add_host(&mut config, target);
            }
        }
        config
    }

    fn attempt(&self, index: usize) -> Config {
        let target = &self.targets[index];
        let mut config = self.common.clone();
        config.user(&self.user).dbname(&self.database).ssl_mode(self.driver_mode(target));
        if self.security.is_direct {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        if !self.application_name().is_empty() {
            config.application_name(self.application_name());
        }
        if let Some(options) = self.parameters.given("options") {
            config.options(options);
        }
        if let Some(password) = &self.passwords[index] {
            config.password(password);
        }
        add_host(&mut config, target);
        config
    }

    /// Maps the verifying modes to `require`; the verifier in `tls` checks the certificate.
    const fn driver_mode(&self, target: &HostPort) -> DriverMode {
        if target.is_socket() {
            // libpq ignores sslmode on a Unix socket; the server never offers TLS there.
            return DriverMode::Disable;
        }
        match self.security.mode {
            SslMode::Disable => DriverMode::Disable,
            SslMode::Allow | SslMode::Prefer => DriverMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => DriverMode::Require,
        }
    }
}

fn add_host(config: &mut Config, target: &HostPort) {
    match &target.host {
        Host::Socket(folder) => config.host_path(folder),
        Host::Name(name) => config.host(name),
        Host::Address { name, address } => {
            // Without a name the driver refuses TLS. A name that starts with '/' would be taken for a
            // socket folder.
            let name = name.clone().filter(|name| !name.starts_with('/'));
            config.host(name.unwrap_or_else(|| address.to_string())).hostaddr(*address)
        }
    };
    config.port(target.port);
}

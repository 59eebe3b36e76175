//! `context`: facts that are equal on every attempt at one message.
//!
//! Randomness and keys are HMAC-SHA-256 of the installation's secret over function name, message id and purpose: not
//! of the version, so that they survive a redeployment between two attempts.

use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use wasmtime::bail;

use super::Settings;
use super::bindings::semel::function::context as wit;
use crate::clock::Timestamp;
use crate::engine::label::Class;
use crate::engine::limits::{LABEL_BYTES, RANDOM_BYTES};
use crate::message::{Contract, Message, keyed};

pub(crate) struct Context {
    settings: Arc<Settings>,
    function: String,
    message: String,
    accepted_at: Timestamp,
    random: Option<ChaCha20Rng>,
}

impl Context {
    pub(crate) fn new(settings: &Arc<Settings>, message: &Message) -> Self {
        Self {
            settings: Arc::clone(settings),
            function: message.function.clone(),
            message: message.id.clone(),
            accepted_at: message.accepted_at,
            random: None,
        }
    }

    fn derive(&self, purpose: &str, label: &str) -> [u8; 32] {
        keyed(&self.settings.secret, purpose, &[&self.function, &self.message, label])
    }
}

impl wit::Host for Context {
    async fn function_name(&mut self) -> wasmtime::Result<String> {
        Ok(self.function.clone())
    }

    async fn guarantee(&mut self) -> wasmtime::Result<wit::GuaranteeLevel> {
        Ok(match (self.settings.manifest.contract, self.settings.class) {
            (Contract::BeginOnce, _) => wit::GuaranteeLevel::AtMostOnce,
            (Contract::FinishOnce, Class::External) => wit::GuaranteeLevel::AtLeastOnce,
            (Contract::FinishOnce, _) => wit::GuaranteeLevel::ExactlyOnce,
        })
    }

    async fn logical_time(&mut self) -> wasmtime::Result<i64> {
        Ok(self.accepted_at.0)
    }

    async fn idempotency_key(&mut self, label: String) -> wasmtime::Result<String> {
        if label.len() > LABEL_BYTES {
            let length = label.len();
            bail!("the label of an idempotency key has {length} bytes; at most {LABEL_BYTES} are allowed");
        }
        Ok(hex::encode(&self.derive("semel idempotency key", &label)[..16]))
    }

    async fn random(&mut self, len: u32) -> wasmtime::Result<Vec<u8>> {
        let seed = self.derive("semel random", "");
        let mut bytes = vec![0; len.min(RANDOM_BYTES) as usize];
        self.random.get_or_insert_with(|| ChaCha20Rng::from_seed(seed)).fill_bytes(&mut bytes);
        Ok(bytes)
    }
}

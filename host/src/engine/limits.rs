//! How much one instance may take: the wasmtime configuration, and linear memory and tables of a run.

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, ResourceLimiter};

/// Instances that can live at once.
pub(crate) const MOST_INSTANCES: u32 = 64;
/// The most memory that a manifest may ask for.
pub(crate) const LARGEST_MEMORY: u64 = 256 << 20;
const LARGEST_TABLE: usize = 20_000;

/// The engine: small and deterministic, with pooled instances where the address space allows it.
pub(crate) fn engine() -> anyhow::Result<Engine> {
    let mut config = configuration();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    match Engine::new(&config) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::warn!(%error, "no room for an instance pool; instances are allocated on demand, which is slower");
            Ok(Engine::new(&configuration())?)
        }
    }
}

fn configuration() -> Config {
    let mut config = Config::new();
    config
        .concurrency_support(false) // Refuses async components; faster, and a class of advisories goes away.
        .epoch_interruption(true)
        .consume_fuel(true)
        .wasm_component_model_implements(false) // The default; the label depends on it.
        .wasm_relaxed_simd(false)
        .cranelift_nan_canonicalization(true) // A second attempt on another host computes the same.
        .async_stack_size(1 << 20)
        .max_wasm_stack(512 << 10);
    config
}

fn pool() -> PoolingAllocationConfig {
    let n = MOST_INSTANCES;
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(n)
        .total_stacks(n)
        .total_memories(3 * n)
        .total_tables(3 * n)
        .table_elements(LARGEST_TABLE)
        .total_core_instances(16 * n)
        .max_memories_per_component(3)
        .max_tables_per_component(3)
        .max_core_instances_per_component(16)
        .max_core_instance_size(4 << 20)
        .max_component_instance_size(4 << 20)
        .max_memory_size(usize::try_from(LARGEST_MEMORY).unwrap_or(usize::MAX))
        .linear_memory_keep_resident(2 << 20)
        .table_keep_resident(64 << 10)
        .max_unused_warm_slots(n);
    pool
}

/// Counts what an instance takes, and remembers a refusal: the trap that follows it is "out of memory".
pub(crate) struct Limiter {
    most: usize,
    /// In all memories of the instance together.
    taken: usize,
    refused: bool,
}

impl Limiter {
    pub(crate) fn new(memory: u64) -> Self {
        Self { most: usize::try_from(memory).unwrap_or(usize::MAX), taken: 0, refused: false }
    }

    /// Whether the guest wanted more memory than it may have.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let granted = self.taken.saturating_add(more) <= self.most;
        if granted {
            self.taken += more;
        }
        self.refused |= !granted;
        Ok(granted)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= LARGEST_TABLE)
    }
}

//! The wasmtime configuration: one for the engine that runs components, and for the one that compiles them.

use std::hash::{Hash, Hasher};

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::limits::{LARGEST_MEMORY, LARGEST_TABLE, MOST_INSTANCES, STACK_BYTES, WASM_STACK_BYTES};

/// The engine that runs: deterministic, with pooled instances where the address space allows it.
pub(super) fn engine() -> anyhow::Result<Engine> {
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

/// The engine that compiles for the other one. It makes no instances, so it needs no address space for them.
pub(super) fn compiler() -> anyhow::Result<Engine> {
    Ok(Engine::new(&configuration())?)
}

/// What an artifact depends on beside the component: the version of wasmtime, the processor and all settings, as bytes.
pub(super) fn fingerprint(engine: &Engine) -> Vec<u8> {
    struct Collect(Vec<u8>);
    impl Hasher for Collect {
        fn write(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
        fn finish(&self) -> u64 {
            0 // Nobody asks: the bytes themselves are what is wanted.
        }
    }
    let mut collect = Collect(Vec::new());
    engine.precompile_compatibility_hash().hash(&mut collect);
    collect.0
}

fn configuration() -> Config {
    let mut config = Config::new();
    config
        .concurrency_support(false) // Refuses async components; faster, and a class of advisories goes away.
        .epoch_interruption(true)
        .consume_fuel(true)
        .wasm_component_model_implements(false) // The default; the label depends on it.
        .wasm_relaxed_simd(false)
        .wasm_memory64(false) // Not needed, and memories of 4 GiB and less are checked by guard pages.
        .cranelift_nan_canonicalization(true) // A second attempt on another host computes the same.
        .async_stack_size(STACK_BYTES)
        .max_wasm_stack(WASM_STACK_BYTES);
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
        .max_unused_warm_slots(n)
        .pagemap_scan(if swaps() { Enabled::No } else { Enabled::Auto });
    pool
}

/// Whether memory of this process may be swapped out, as far as that can be seen. Then the kernel's list of pages that a guest
/// wrote has gaps, and what is not on it would be there for the next guest: memories are made new as a whole, which takes
/// longer.
fn swaps() -> bool {
    let devices = std::fs::read_to_string("/proc/swaps");
    devices.map_or(true, |devices| devices.lines().count() > 1) // The first line is a heading.
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the child compiles is what the host runs.
    #[test]
    fn both_engines_have_one_fingerprint() {
        let (runs, compiles) = (engine().expect("an engine"), compiler().expect("a compiler"));
        assert_eq!(fingerprint(&runs), fingerprint(&compiles));
        let other = Engine::new(configuration().consume_fuel(false)).expect("an engine");
        assert_ne!(fingerprint(&runs), fingerprint(&other));
    }
}

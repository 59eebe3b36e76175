//! The generated bindings, and nothing else.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "message-handler",
    imports: { default: async | trappable },
    exports: { default: async },
    with: { "semel:function/transaction.cursor": crate::guest::transaction::Cursor },
});

//! Components that no compiler would make, from a few lines of WebAssembly text each.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{PackageId, Resolve};

use crate::harness::root;

/// What they may import, beside the memory that the canonical ABI wants. At 0 the memory holds zeros, which is also the
/// result `ok(none)`; at 1024 there is text to hand over; at 4096 the host's answers go.
const IMPORTS: &str = r#"
    (import "semel:function/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
    (import "semel:function/context@0.1.0" "idempotency-key" (func $key (param i32 i32 i32)))
    (import "semel:function/state@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))
    (import "semel:function/transaction@0.1.0" "execute" (func $execute (param i32 i32 i32 i32 i32)))
    (import "semel:function/transaction@0.1.0" "savepoint" (func $savepoint (param i32 i32 i32)))
    (import "semel:function/transaction@0.1.0" "open-cursor" (func $open (param i32 i32 i32 i32 i32)))
    (import "semel:function/outbox@0.1.0" "publish" (func $publish
        (param i32 i32  i32 i32 i32  i32 i32 i32  i32 i32  i32 i32  i32 i64  i32)))
    (import "[export]test:hostile/things" "[resource-new]thing" (func $thing (param i32) (result i32)))
    (memory (export "memory") 4)
    (global $free (mut i32) (i32.const 65536))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (if (i32.gt_u (global.get $free) (i32.const 196608)) (then (global.set $free (i32.const 65536))))
        (global.get $free)
        (global.set $free (i32.and (i32.add (global.get $free) (i32.add (local.get 3) (i32.const 15))) (i32.const -16))))
"#;

/// A component whose handler runs `body`, which leaves the address of its result on the stack. `text` is at 1024.
pub(crate) fn component(text: &str, body: &str) -> Vec<u8> {
    with_declarations(text, "", body)
}

/// The same, with more fields of the core module.
pub(crate) fn with_declarations(text: &str, declarations: &str, body: &str) -> Vec<u8> {
    let handler = r#"(func (export "semel:function/handler@0.1.0#handle")
        (param i32 i32  i32 i32  i32 i32 i32  i32 i32 i32  i32 i32  i64  i32 i32) (result i32)"#;
    let module = format!("(module {IMPORTS} (data (i32.const 1024) \"{text}\") {declarations} {handler} {body}))");
    let mut module = wat::parse_str(&module).unwrap_or_else(|error| panic!("{error}: {module}"));
    let mut resolve = Resolve::default();
    let mut add = |name: &str, text: &str| -> PackageId { resolve.push_str(name, text).expect("a package") };
    add("semel.wit", &semel());
    let own = add(
        "hostile.wit",
        "package test:hostile; interface things { resource thing; } \
         world hostile { include semel:function/message-handler@0.1.0; export things; }",
    );
    let world = resolve.select_world(&[own], None).expect("a world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("metadata");
    let mut encoder = ComponentEncoder::default().validate(true).module(&module).expect("a module of this world");
    encoder.encode().expect("a component")
}

/// `wit/*.wit` as one file, in which the package is named once.
pub(crate) fn semel() -> String {
    let package = "package semel:function@0.1.0;";
    let mut whole = String::from(package);
    for entry in std::fs::read_dir(root().join("wit")).expect("the interfaces") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("an interface");
        let (before, after) = text.split_once(package).expect("the package");
        // The comment before it belongs to nothing else.
        assert!(before.lines().all(|line| line.starts_with("///")), "something before the package");
        whole.push_str(after);
    }
    whole
}

/// A component of one function, which adds and branches so many times over 2000 variables that live all the time: small
/// to send, and the compiler takes time and memory for it out of all proportion.
pub(crate) fn bomb(steps: usize) -> Vec<u8> {
    const VARIABLES: usize = 2000;
    let mut body = format!("(local{})", " i32".repeat(VARIABLES));
    for step in 0..steps {
        let variable = |factor: usize| step * factor % VARIABLES + 1;
        let (a, b, c, d) = (variable(1), variable(7), variable(13), variable(11));
        body.push_str(&format!(
            "(local.set {a} (i32.add (local.get {b}) (i32.mul (local.get {c}) (local.get 0))))
             (if (local.get {d}) (then (local.set {b} (i32.const {step}))))"
        ));
    }
    let text = format!("(component (core module (func (param i32) (result i32) {body} (local.get 1))))");
    wat::parse_str(text).expect("a component")
}

//! Shader modules: assembly from files, and the location of errors.

use std::path::Path;

use wgrad::DType;
use wgrad::shader::{Shader, Width, locate, with_locations};

fn text(source: &'static str) -> String {
    Shader::from_source("test", source).finish().expect("assembles").text.to_string()
}

fn refused(shader: Shader) -> String {
    shader.finish().expect_err("is refused")
}

/// The text without blanks and comments.
fn squeezed(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<String>().replace([' ', '\n'], "")
}

const ENTRY: &str = "@compute @workgroup_size(1) fn main() {";

#[test]
fn constants_and_aliases_are_set_by_name() {
    let shader = || {
        Shader::from_source(
            "test",
            "const N: u32 = 4u; // elements\nconst SCALE: f32 = 1.0;\nalias T = f32;\n\
             @compute @workgroup_size(N) fn main() { var x: T = T(SCALE); }",
        )
    };
    let assembled = shader().set("N", 7).set("T", "i32").set("SCALE", 2).finish().expect("assembles");
    for expected in ["const N: u32 = 7u; // elements", "const SCALE: f32 = 2f;", "alias T = i32;"] {
        assert!(assembled.text.contains(expected), "{}", assembled.text);
    }
    assert_eq!((assembled.invocations, assembled.f16, assembled.epilogue), (7, false, None));
    let why = refused(shader().set("M", 1));
    assert!(why.contains("shaders/test.wgsl") && why.contains("`M`"), "{why}");
    assert!(refused(Shader::new("no_such_kernel")).contains("no_such_kernel"));
}

/// A binding in a narrow type: loads and stores become calls, also in imported functions and with nested positions.
#[test]
fn bindings_are_stored_in_narrow_types() {
    let text = "alias V = vec4<f32>;
@group(0) @binding(0) var<storage, read> index: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<V>;
@group(0) @binding(3) var<storage, read> pairs: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<V>;
@group(0) @binding(5) var<storage, read_write> z: array<f32>;
@compute @workgroup_size(1) fn main() {
  y[index[0]] = v[x_at(1u)] + x[index[x_at(2u)]];
  z[0] = v[3].y + pairs[1].x;
}
fn x_at(i: u32) -> u32 { return u32(x[i]); }";
    let source = Shader::from_source("test", text).finish().expect("assembles");
    let mut narrow = source.clone();
    for (binding, dtype) in [(0, DType::U8), (1, DType::BF16), (2, DType::F16), (3, DType::F16), (4, DType::F16)] {
        narrow = narrow.stored(binding, dtype, dtype.wide()).unwrap_or_else(|why| panic!("binding {binding}: {why}"));
    }
    let squeezed = squeezed(&narrow.text);
    for expected in [
        "narrow_y(widen_index(0),widen_v(x_at(1u))+widen_x(widen_index(x_at(2u))));",
        "z[0]=widen_v(3).y+widen_pairs(1).x;",
        "returnu32(widen_x(i));",
        "var<storage,read>x:array<u32>",
        "var<storage,read>v:array<vec2<u32>>",
        "var<storage,read>pairs:array<u32>",
        "var<storage,read_write>y:array<vec2<u32>>",
    ] {
        assert!(squeezed.contains(expected), "{expected} in {}", narrow.text);
    }
    let module = naga::front::wgsl::parse_str(&narrow.text).expect("valid");
    let capabilities = naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities).validate(&module).expect("valid");
    for (binding, dtype, says) in
        [(5, DType::F16, "`z` is stored by less than a word"), (7, DType::F16, "no array at binding 7")]
    {
        let why = source.stored(binding, dtype, dtype.wide()).expect_err("is refused");
        assert!(why.contains(says), "{why}");
    }
    let why = wgrad::shader::Source::new("", 1).stored(0, DType::F16, DType::F32).expect_err("is refused");
    assert!(why.contains("not assembled"), "{why}");
}

#[test]
fn a_source_declares_what_the_planner_needs() {
    let text = "// A kernel.

enable f16;
const HALF: u32 = 4u;

@compute @workgroup_size(2 * HALF, 4u)
fn main() { let x = epilogue(f32(1.0h), 0u); }";
    let source = Shader::from_source("test", text).set("HALF", 3).finish().expect("assembles");
    assert_eq!((source.invocations, source.f16, source.epilogue), (24, true, Some(Width::One)));
    assert!(source.text.starts_with("enable f16;\n// A kernel.\n"), "{}", source.text);
    naga::front::wgsl::parse_str(&source.text).expect("valid");
    let source = Shader::new("matmul_tile").set("Y_VEC4", true).finish().expect("assembles");
    assert_eq!((source.f16, source.epilogue), (false, Some(Width::Four)));
    let why = refused(Shader::from_source("test", "@compute @workgroup_size(N) fn main() {}"));
    assert!(why.contains("shaders/test.wgsl:1") && why.contains("`N`"), "{why}");
}

#[test]
fn conditions_choose_declarations_parameters_and_statements() {
    let shader = |t: &str, wide: bool| {
        let source = "const WIDE: bool = false;
alias T = f32;
@if(WIDE && T == f32)
fn f() -> u32 { return 1u; }
@elif(!WIDE)
fn f() -> u32 { return 2u; }
@else
fn f() -> u32 { return 3u; }

@compute @workgroup_size(1)
fn main(
  @if(WIDE) @builtin(workgroup_id) at: vec3<u32>,
  @else @builtin(local_invocation_id) at: vec3<u32>,
) {
  @if(T != f32) let x = 4u;
  @elif(WIDE) {
    let y = 5u;
  }
  @else let z = f();
}
";
        squeezed(&Shader::from_source("test", source).set("T", t).set("WIDE", wide).finish().expect("assembles").text)
    };
    let main = |at: &str, body: &str| format!("fnmain({at}:vec3<u32>,){{{body}}}");
    let [group, local] = ["@builtin(workgroup_id)at", "@builtin(local_invocation_id)at"];
    assert!(shader("f32", true).ends_with(&main(group, "{lety=5u;}")), "{}", shader("f32", true));
    assert!(!shader("f32", true).contains("fnf"), "f is not called");
    assert!(shader("f32", false).contains(&main(local, "letz=f();")));
    assert!(shader("f32", false).contains("return2u;"));
    assert!(shader("i32", true).ends_with(&main(group, "letx=4u;")));
    let unknown = Shader::from_source("test", "@if(WIDER)\n@compute @workgroup_size(1) fn main() {}");
    assert!(refused(unknown).contains("`WIDER`"));
}

#[test]
fn nested_loops_are_unrolled() {
    let unrolled = text(
        "const N: u32 = 4u;
var<private> a: array<u32, 4>;
@compute @workgroup_size(1)
fn main() {
  @unroll for (var i = 0u; i < N / 2; i++) {
    @unroll for (var j = 0u; j < 2u; j++) {
      a[i * 2u + j] = ij(i, j);
    }
    let k = i;
  }
  @unroll(N > 4) for (var i = 0u; i < N; i++) {
    a[i] = 0u;
  }
}
fn ij(i: u32, j: u32) -> u32 { return i + j; }
",
    );
    let body = "{a[0u*2u+0u]=ij(0u,0u);a[0u*2u+1u]=ij(0u,1u);letk=0u;}{a[1u*2u+0u]=ij(1u,0u);a[1u*2u+1u]=ij(1u,1u);\
                letk=1u;}for(vari=0u;i<N;i++){a[i]=0u;}";
    assert!(squeezed(&unrolled).contains(body), "{unrolled}");
    for head in ["for (var i = 1u; i < 4u; i++)", "for (var i = 0u; i < n; i++)", "while (true)"] {
        let source = format!("// About.\n\n{ENTRY}\n  @unroll {head} {{ }}\n}}\n");
        let why = refused(Shader::from_source("test", source.leak()));
        assert!(why.starts_with("shaders/test.wgsl:3: "), "{head}: {why}");
    }
}

#[test]
fn templates_are_copied_for_the_names_that_occur() {
    let copies = squeezed(&text(
        "@group(0) @binding(0) var<storage, read_write> q: array<f32>;
@group(0) @binding(1) var<storage, read_write> k: array<f32>;
@template(FROM, TO)
fn copy_FROM_TO(i: u32) { TO[i] = FROM[i]; }
@compute @workgroup_size(1)
fn main() { copy_q_k(0u); copy_k_q(1u); }
",
    ));
    for expected in ["fncopy_q_k(i:u32){k[i]=q[i];}", "fncopy_k_q(i:u32){q[i]=k[i];}"] {
        assert!(copies.contains(expected), "{copies}");
    }
    assert!(!copies.contains("FROM"), "{copies}");
}

#[test]
fn imports_bring_what_is_mentioned_and_nothing_else() {
    let tree = text(
        "import wgrad::tree::{tree_JOIN};
const THREADS: u32 = 64u;
alias Tree = f32;
@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) lane: u32) { let s = tree_sum(lane, relu_f32(f32(lane))); }
fn not_called() {}
",
    );
    for expected in ["fn tree_sum(", "fn sum(", "fn relu_f32(", "var<workgroup> tree: array<Tree, THREADS>;"] {
        assert!(tree.contains(expected), "{tree}");
    }
    for other in ["not_called", "fn tree_max", "fn sigmoid_f32"] {
        assert!(!tree.contains(other), "{tree}");
    }
    for (import, missing) in
        [("wgrad::trees::{tree_sum}", "trees.wgsl"), ("wgrad::tree::{tree_product}", "tree_product")]
    {
        let source = format!("import {import};\n{ENTRY} tree_sum(); tree_product(); }}");
        let why = refused(Shader::from_source("test", source.leak()));
        assert!(why.contains(missing), "{why}");
    }
    let twice = "import wgrad::tree::{tree_JOIN};\nconst THREADS: u32 = 1u;\nalias Tree = f32;\n\
                 fn sum() {}\n@compute @workgroup_size(1) fn main() { sum(); let s = tree_sum(0u, 1.0); }";
    assert!(refused(Shader::from_source("test", twice)).contains("`sum` is declared in"));
}

#[test]
fn circles_are_errors() {
    // conv2d_product and conv2d_phases import each other.
    assert!(refused(Shader::new("conv2d_tile").set("NO_SUCH_CONSTANT", 1)).contains("`NO_SUCH_CONSTANT`"));
    let constants = "const A: u32 = B;\nconst B: u32 = A;\n@if(A == 1)\nfn f() {}\n\
                     @compute @workgroup_size(1) fn main() { f(); }";
    let why = refused(Shader::from_source("test", constants));
    assert!(why.contains("`A == 1` is not an expression of constants"), "{why}");
}

#[test]
fn syntax_errors_name_file_and_line() {
    for (source, line) in [
        ("// About.\n\nfn f() {\n  return;\n", 3),
        ("const N: u32 = 1u;\nconst M: u32 = 2u", 2),
        ("import tree;\n", 1),
        ("\n@else\nfn f() {}\n", 2),
        ("func f() {}\n", 1),
    ] {
        let why = refused(Shader::from_source("test", source));
        assert!(why.starts_with(&format!("shaders/test.wgsl:{line}: ")), "{source}: {why}");
    }
}

#[test]
fn errors_of_the_compiler_are_located_in_the_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    for (kernel, file, sound, broken) in [
        ("softmax", "softmax", "let scale = 1.0 / s;", "let scale = missing / s;"),
        ("softmax", "softmax_row", "return keep_nan(x, exp(x));", "return keep_nan(x, missing);"),
        // In an unrolled loop, in a template, and in a function that every kernel sees.
        ("matmul_tile", "matmul_tile", "tile[to_a + t * (TILE_M / 4u)] = left[t];", "tile[to_a] = missing;"),
        ("attention", "attention_tile", "let size = p.LEFT.width;", "let size = missing.q.width;"),
        ("softmax", "scalar", "fn is_nan(x: f32) -> bool {", "fn is_nan(x: missing) -> bool {"),
    ] {
        let source = std::fs::read_to_string(folder.join(format!("{file}.wgsl"))).expect("readable");
        let line = 1 + source.lines().position(|line| line.contains(sound)).expect("the line exists");
        let text = Shader::new(kernel).finish().expect("assembles").text;
        naga::front::wgsl::parse_str(&text).expect("valid");
        let emitted = sound.replace("[t]", "[2u]").replace("+ t ", "+ 2u ").replace("LEFT", "q");
        let at = 1 + text.lines().position(|line| line.contains(&emitted)).expect("the line is in the text");
        let found = locate(&text, at);
        assert_eq!(found.as_deref(), Some(&*format!("shaders/{file}.wgsl:{line}")), "{emitted}");
        let wrong = text.replacen(&emitted, broken, 1);
        let error = naga::front::wgsl::parse_str(&wrong).map(drop).expect_err("invalid");
        let at = error.location(&wrong).expect("naga tells the line").line_number as usize;
        let found = locate(&wrong, at).expect("from a file");
        assert!(found.starts_with(&format!("shaders/{file}.wgsl:")), "{kernel}: {found}");
        let message = naga::front::wgsl::parse_str(&wrong).map(drop).expect_err("invalid").emit_to_string(&wrong);
        let shown = with_locations(&wrong, &message);
        assert!(
            !message.contains(&found) && shown.contains(&format!(":{at}:")) && shown.contains(&format!("({found})"))
        );
    }
    // Generated code comes from no file.
    assert_eq!(locate("fn generated() {}\n", 1), None);
    assert_eq!(locate("", 0), None);
}

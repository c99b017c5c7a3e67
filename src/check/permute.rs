//! Runs workgroups in reverse order: correct kernels give the same bits, races may not.

use crate::Result;
use crate::plan::Plan;

/// Reverses the order of the workgroups in all dispatches of a plan: the entry point reverses the workgroup number
/// that it receives. Dispatches of one workgroup are not changed, nor are those whose entry point does not take
/// `@builtin(workgroup_id)`: kernels of a program's own ops may number invocations in another way.
///
/// # Errors
/// None. The signature is that of other edits of a plan.
pub fn permute(plan: &mut Plan) -> Result<()> {
    let dispatches = plan.calls.iter_mut().flat_map(|call| &mut call.dispatches);
    for dispatch in dispatches.filter(|dispatch| dispatch.workgroups != [1; 3]) {
        if let Some(text) = permuted_text(&dispatch.wgsl.text, &dispatch.entry) {
            dispatch.wgsl.text = text.into();
        }
    }
    Ok(())
}

/// The grid size is read from the builtin, not written into the text, so that each text needs one more pipeline only.
fn permuted_text(text: &str, entry: &str) -> Option<String> {
    const NUMBER: &str = "@builtin(workgroup_id) ";
    const GRID: &str = "@builtin(num_workgroups) ";
    let function = text.find(&format!("fn {entry}("))?;
    let body = function + text[function..].find('{')? + 1;
    let name_of = |builtin: &str| {
        let at = function + text[function..body].find(builtin)? + builtin.len();
        Some((at, &text[at..at + text[at..].find(':')?]))
    };
    let (at, number) = name_of(NUMBER)?;
    let (grid, parameter) = match name_of(GRID) {
        Some((_, name)) => (name, ""),
        None => ("whole_grid", "@builtin(num_workgroups) whole_grid: vec3<u32>, "),
    };
    let before = at - NUMBER.len();
    Some(format!(
        "{}{parameter}{NUMBER}in_order{}\n  let {number} = {grid} - 1u - in_order;{}",
        &text[..before],
        &text[at + number.len()..body],
        &text[body..]
    ))
}

//! Adapter properties as JSON, for `wgrad devices` and for reports.

use serde_json::{Value as Json, json};
use wgrad::Profile;

/// An adapter's name, limits and features.
pub fn declared(profile: &Profile) -> Json {
    json!({
        "name": profile.name,
        "backend": profile.backend,
        "driver": profile.driver,
        "type": profile.kind,
        "software": profile.software,
        "limits": {
            "invocations_per_workgroup": profile.max_invocations,
            "workgroups_per_dimension": profile.max_workgroups,
            "workgroup_memory_bytes": profile.max_workgroup_memory,
            "storage_buffers_per_kernel": profile.max_storage_buffers,
            "binding_bytes": profile.max_binding,
            "buffer_bytes": profile.max_buffer,
            "uniform_alignment_bytes": profile.uniform_alignment,
        },
        "multiprocessors": profile.multiprocessors,
        "features": {
            "subgroup_sizes": profile.subgroups.map(|(min, max)| [min, max]),
            "f16": profile.f16,
            "cooperative_matrix_sides": profile.cooperative_matrices,
            "timestamps": profile.timestamps,
        },
    })
}

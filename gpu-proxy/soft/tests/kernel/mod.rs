//! A kernel around one instruction, and its results.

use std::fmt::Write;

use vgpu_soft::{Device, DeviceConfig, LaunchConfig, Module};

/// One instruction form: its text, and the widths of its registers in bits.
pub struct Form<'a> {
    pub text: &'a str,
    pub from: &'a [u32],
    pub to: u32,
}

/// The result of each row, computed by a thread of its own.
pub fn results(form: &Form<'_>, rows: &[Vec<u64>]) -> Vec<u64> {
    let text = kernel(form);
    let module = Module::load(text.as_bytes()).unwrap_or_else(|error| panic!("{error} in:\n{text}"));
    let device = Device::new(DeviceConfig { memory_bytes: 16 << 20, seed: 1, ..Default::default() });
    let instance = device.instantiate(&module).unwrap();
    let row_bytes = 8 * (form.from.len() as u64 + 1);
    let base = device.memory().alloc(row_bytes * rows.len() as u64).unwrap();
    for (index, row) in rows.iter().enumerate() {
        let data: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
        device.memory().write(base + row_bytes * index as u64, &data).unwrap();
    }
    for (index, chunk) in rows.chunks(1024).enumerate() {
        let threads = u32::try_from(chunk.len()).unwrap();
        let config = LaunchConfig { grid: [1, 1, 1], block: [threads, 1, 1], shared_bytes: 0 };
        let start = base + row_bytes * 1024 * index as u64;
        device
            .launch(&instance, 0, &config, &start.to_le_bytes())
            .unwrap_or_else(|fault| panic!("{fault} in:\n{text}"));
    }
    let result = |index: usize| {
        let mut data = [0; 8];
        device.memory().read(base + row_bytes * (index as u64 + 1) - 8, &mut data).unwrap();
        u64::from_le_bytes(data)
    };
    (0..rows.len()).map(result).collect()
}

fn kernel(form: &Form<'_>) -> String {
    let mut text = String::from(
        ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 rows)\n{\n\
         .local .align 16 .b8 loc[16];\n.shared .align 16 .b8 sh[16];\n\
         .reg .pred p, q;\n.reg .b32 t, row;\n.reg .b64 x, base, at;\n",
    );
    let mut line = |words: String| writeln!(text, "{words}").unwrap();
    let names = ["a", "b", "c"];
    line(format!(".reg .b{} d;", form.to));
    line("ld.param.u64 base, [rows];\nmov.u32 row, %tid.x;".into());
    line(format!("mad.wide.u32 at, row, {}, base;", 8 * (form.from.len() + 1)));
    for (index, width) in form.from.iter().enumerate() {
        line(format!(".reg .b{width} {};", names[index]));
        line(format!("ld.global.b{width} {}, [at+{}];", names[index], 8 * index));
    }
    line(form.text.into());
    line(format!("st.global.b{} [at+{}], d;\nret;\n}}", form.to, 8 * form.from.len()));
    text
}

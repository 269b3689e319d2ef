//! Writes `docs/errors/` from the table of codes.

use std::{fs, io, path::Path};

use vgpu_codes::{Code, page};

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    fs::create_dir_all(&folder)?;
    for &code in Code::ALL {
        fs::write(folder.join(format!("{code}.md")), page(code))?;
    }
    Ok(())
}

//! Images of the Workers in tests/workers, one for each language, each with no more than that language needs to run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::images::ImageSpec;
use crate::programs::{Programs, source_root};
use crate::tools::Tools;

/// Name of the image of a language's Worker.
#[must_use]
pub fn image_name(language: &str) -> String {
    format!("{language}-worker:dev")
}

/// The images of all languages: Workers in Go, Java, Python, Rust and TypeScript, and the runtime with an Activity in PHP.
///
/// # Errors
/// A Worker can't be built, or a language is not installed.
pub async fn sdk_images(programs: &Programs) -> Result<Vec<ImageSpec>> {
    let tools = Tools::ensure_async(Tools::WORKERS).await?;
    Ok(vec![
        go(&tools)?,
        java(&tools)?,
        php(programs)?,
        python(&tools)?,
        programs_image("rust", programs.program("rust-worker")?),
        typescript(&tools)?,
    ])
}

fn programs_image(language: &str, program: &Path) -> ImageSpec {
    ImageSpec::new(&image_name(language), ["/worker"]).program(program, "/worker")
}

fn go(tools: &Tools) -> Result<ImageSpec> {
    Ok(programs_image("go", tools.program("go-worker")?))
}

/// The Java runtime beside the Worker was linked for it alone.
fn java(tools: &Tools) -> Result<ImageSpec> {
    let built = built(tools, "java-worker")?;
    let image = ImageSpec::new(&image_name("java"), ["/jre/bin/java", "-jar", "/app/worker.jar"]);
    let image =
        ["bin/java", "lib/server/libjvm.so"].iter().fold(image.tree(&built.join("jre"), "/jre"), |image, file| {
            image.program(&built.join("jre").join(file), &format!("/jre/{file}"))
        });
    Ok(image
        .file(&built.join("app/target/worker.jar"), "/app/worker.jar")
        .tree(&built.join("app/target/lib"), "/app/lib"))
}

/// The interpreter with its library, where they are on this machine: it finds its library by its own place.
fn python(tools: &Tools) -> Result<ImageSpec> {
    let built = built(tools, "python-worker")?;
    let ask =
        "import os, sys, sysconfig; print(os.path.realpath(sys.executable), sysconfig.get_path('stdlib'), sep='\\n')";
    let output = Command::new("/usr/bin/python3").args(["-c", ask]).output().context("run python3")?;
    ensure!(output.status.success(), "python3: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout)?;
    let (interpreter, library) = said.trim().split_once('\n').context("python3 does not tell where it is")?;
    let image = ImageSpec::new(&image_name("python"), [interpreter, "/app/main.py"]).env("PYTHONPATH", "/site");
    let image = linked(image.program(Path::new(interpreter), interpreter), Path::new(library), library)?;
    linked(image.tree(&built.join("app"), "/app"), &built.join("site"), "/site")
}

fn typescript(tools: &Tools) -> Result<ImageSpec> {
    let built = built(tools, "typescript-worker")?;
    let image = ImageSpec::new(&image_name("typescript"), ["/node", "/app/dist/main.js"]);
    let app = built.join("app");
    let image = image.program(&crate::prerequisites::find_program("node").context("node is missing")?, "/node");
    let image = linked(image, &app.join("node_modules"), "/app/node_modules")?;
    Ok(image.tree(&app.join("dist"), "/app/dist").file(&app.join("package.json"), "/app/package.json"))
}

/// What a team makes of the runtime's image: with an interpreter, its script, and the adapter.
fn php(programs: &Programs) -> Result<ImageSpec> {
    let root = source_root();
    let php = crate::prerequisites::find_program("php").context("php is missing: install the package php-cli")?;
    let image = programs.runtime_image(&image_name("php"))?.program(&php, "/usr/bin/php");
    // Without its zone Debian's PHP warns, on standard output.
    let image = image.file(Path::new("/usr/share/zoneinfo/UTC"), "/usr/share/zoneinfo/UTC");
    let image = image.file(&root.join("tests/workers/php/greet.php"), "/app/greet.php");
    Ok(image.file(&root.join("worker-runtime/adapters/php/temporal_handler.php"), "/app/temporal_handler.php"))
}

/// The folder that a Worker was built in.
fn built(tools: &Tools, name: &str) -> Result<PathBuf> {
    let program = tools.program(name)?;
    Ok(program.ancestors().nth(2).context("the Worker lies in no folder")?.to_owned())
}

/// Adds a folder, and the libraries of what is loaded from it.
fn linked(image: ImageSpec, source: &Path, target: &str) -> Result<ImageSpec> {
    let mut image = image.tree(source, target);
    let mut open = vec![source.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let (entry, path) = entry.map(|entry| (entry.file_type(), entry.path()))?;
            if entry?.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "so" || extension == "node") {
                let place = Path::new(target).join(path.strip_prefix(source)?);
                image = image.program(&path, &place.to_string_lossy());
            }
        }
    }
    Ok(image)
}

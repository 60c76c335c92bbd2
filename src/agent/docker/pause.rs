//! The image of the pause container: one program that does nothing, made here, because no registry may be reachable.
//!
//! Enters: the kind of processor. Leaves: an ELF file of some 200 bytes, in a tar file that `docker import` takes. Can go
//! wrong: it is not known for another processor.

/// Name of the image; its tag changes with the program.
pub(super) const REPOSITORY: &str = "firelane/pause";
pub(super) const TAG: &str = "1";
/// The program in the image.
pub(super) const PROGRAM: &str = "/pause";

/// Where the file is mapped.
const BASE: u64 = 0x40_0000;
/// ELF's header and one program header.
const HEADERS: u64 = 64 + 56;
/// `struct sigaction` as the kernel has it: the handler (1: ignore), flags, restorer, mask, all zero.
const IGNORE: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
};

/// The file system of the image, as a tar file.
pub(super) fn image() -> Result<Vec<u8>, String> {
    let program = program(std::env::consts::ARCH)?;
    Ok(tar(PROGRAM.trim_start_matches('/'), &program))
}

/// It ignores SIGCHLD, so that the kernel reaps what becomes its child where it is the first process of a shared process
/// namespace, and sleeps for ever. SIGKILL ends it.
fn program(architecture: &str) -> Result<Vec<u8>, String> {
    let (machine, code) = match architecture {
        "x86_64" => (62, x86_64()),
        "aarch64" => (183, aarch64()),
        other => return Err(format!("there is no pause program for {other}")),
    };
    Ok(elf(machine, &code))
}

fn x86_64() -> Vec<u8> {
    let mut code = vec![
        0xb8, 13, 0, 0, 0, // mov eax, 13: rt_sigaction
        0xbf, 17, 0, 0, 0, // mov edi, 17: SIGCHLD
        0x48, 0x8d, 0x35, 19, 0, 0, 0, // lea rsi, [rip + 19]: what stands behind the code
        0x31, 0xd2, // xor edx, edx
        0x41, 0xba, 8, 0, 0, 0, // mov r10d, 8: bytes of the mask
        0x0f, 0x05, // syscall
        0xb8, 34, 0, 0, 0, // mov eax, 34: pause
        0x0f, 0x05, // syscall
        0xeb, 0xf7, // jmp back to the mov
    ];
    code.extend(IGNORE);
    code
}

fn aarch64() -> Vec<u8> {
    let mov = |register: u32, value: u32| 0xd280_0000 | value << 5 | register;
    let svc = 0xd400_0001_u32;
    // adr x1: what stands behind the code, ten instructions on.
    let adr = 0x1000_0000_u32 | 10 << 5 | 1;
    let words = [
        mov(8, 134), // rt_sigaction
        mov(0, 17),  // SIGCHLD
        adr,
        mov(2, 0),
        mov(3, 8), // bytes of the mask
        svc,
        mov(8, 73), // ppoll(0, 0, 0, 0): there is no pause
        mov(0, 0),
        mov(1, 0),
        mov(3, 0),
        svc,
        0x17ff_fffb, // b back by five instructions
    ];
    let mut code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    code.extend(IGNORE);
    code
}

/// A static program: the headers, then the code, mapped as one piece that can be read and executed.
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let size = HEADERS + code.len() as u64;
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |out: &mut Vec<u8>, values: &[u16]| out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    let word = |out: &mut Vec<u8>, values: &[u32]| out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    let long = |out: &mut Vec<u8>, values: &[u64]| out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    half(&mut out, &[2, machine]); // an executable
    word(&mut out, &[1]);
    long(&mut out, &[BASE + HEADERS, 64, 0]); // entry, program headers, section headers
    word(&mut out, &[0]);
    half(&mut out, &[64, 56, 1, 64, 0, 0]); // sizes and counts
    word(&mut out, &[1, 5]); // PT_LOAD, read and execute
    long(&mut out, &[0, BASE, BASE, size, size, 0x1_0000]);
    out.extend(code);
    out
}

/// A ustar file with one executable.
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, text: &[u8]| {
        for (to, from) in header.iter_mut().skip(at).zip(text) {
            *to = *from;
        }
    };
    put(0, name.as_bytes());
    put(100, b"0000755\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    for (to, from) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
        *to = from;
    }
    let mut out = header.to_vec();
    out.extend(content);
    out.resize(out.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn the_program_sleeps_until_it_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pause");
        std::fs::write(&file, program(std::env::consts::ARCH).unwrap()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new(&file).stdin(Stdio::null()).spawn().unwrap();
        // It sleeps in the system call, with SIGCHLD ignored.
        let status = format!("/proc/{}/status", child.id());
        let ready = |text: &str| {
            let line = |name: &str| {
                text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned()
            };
            let ignored = u64::from_str_radix(&line("SigIgn:"), 16).unwrap_or(0);
            line("State:").starts_with('S') && ignored & (1 << 16) != 0
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !ready(&std::fs::read_to_string(&status).unwrap()) {
            assert!(std::time::Instant::now() < deadline, "{}", std::fs::read_to_string(&status).unwrap());
            std::thread::yield_now();
        }
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn both_processors_have_a_program_of_whole_instructions() {
        let x86 = program("x86_64").unwrap();
        let arm = program("aarch64").unwrap();
        assert_eq!((x86[18], arm[18]), (62, 183));
        // What is ignored stands where the code looks for it.
        assert_eq!(x86[x86.len() - 32..], IGNORE);
        assert_eq!((arm.len() - 120 - 32) % 4, 0);
        assert!(program("riscv64").is_err());
    }

    #[test]
    fn the_image_is_a_tar_file_that_tar_reads() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image.tar");
        std::fs::write(&file, tar("pause", b"program")).unwrap();
        let out = Command::new("tar").arg("tvf").arg(&file).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(
            out.status.success() && text.starts_with("-rwxr-xr-x") && text.trim_end().ends_with("pause"),
            "{text}"
        );
    }
}

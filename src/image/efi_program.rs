//! A UEFI program that prints one message and stays: what [`super::bootsector`] is to a BIOS.
//!
//! PE32+ as the Microsoft Portable Executable specification has it, with one section; the code is
//! independent of its place, so there is nothing to relocate. UEFI 2.10: the entry point and its
//! registers 2.3.4, system table 4.3, boot services 4.4.

/// Alignment of the section in the file.
const FILE_ALIGNMENT: u32 = 0x200;
/// And in memory: a page.
const PAGE: u32 = 0x1000;

/// Called with the image's handle in `rcx` and the system table in `rdx`. The message, in UCS-2,
/// follows the code.
#[rustfmt::skip]
const CODE: [u8; 48] = [
    0x48, 0x83, 0xec, 0x28,                     // 00  sub rsp, 0x28        space for callees
    0x48, 0x89, 0xd3,                           // 04  mov rbx, rdx
    0x48, 0x8b, 0x4b, 0x40,                     // 07  mov rcx, [rbx+0x40]  ConOut
    0x48, 0x8d, 0x15, 0x1e, 0x00, 0x00, 0x00,   // 0b  lea rdx, [rip+0x1e]  the message
    0xff, 0x51, 0x08,                           // 12  call [rcx+0x08]      OutputString
    0x48, 0x8b, 0x43, 0x60,                     // 15  mov rax, [rbx+0x60]  BootServices
    0x31, 0xc9,                                 // 19  xor ecx, ecx         no time,
    0x31, 0xd2,                                 // 1b  xor edx, edx         no code,
    0x45, 0x31, 0xc0,                           // 1d  xor r8d, r8d         no data:
    0x45, 0x31, 0xc9,                           // 20  xor r9d, r9d
    0xff, 0x90, 0x00, 0x01, 0x00, 0x00,         // 23  call [rax+0x100]     SetWatchdogTimer,
    0xf4,                                       // 29  hlt                  else it resets
    0xeb, 0xfd,                                 // 2a  jmp 0x29             after five minutes
    0xcc, 0xcc, 0xcc, 0xcc,                     // 2c                       the message is aligned
];

/// Makes the program.
#[must_use]
pub fn program(message: &str) -> Vec<u8> {
    let mut section = CODE.to_vec();
    let text = format!("\r\n{message}\r\n\0").replace("\n\n", "\n");
    section.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    let used = u32::try_from(section.len()).unwrap_or(u32::MAX);
    section.resize(section.len().next_multiple_of(FILE_ALIGNMENT as usize), 0);
    let raw = u32::try_from(section.len()).unwrap_or(u32::MAX);

    let mut file = b"MZ".to_vec();
    file.resize(0x3c, 0);
    file.extend([0x40, 0, 0, 0]); // where the next header is
    file.extend(b"PE\0\0");
    let half = |file: &mut Vec<u8>, values: &[u16]| {
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    let word = |file: &mut Vec<u8>, values: &[u32]| {
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    // x86-64, one section; no time, no symbols; optional header; executable, large addresses.
    half(&mut file, &[0x8664, 1]);
    word(&mut file, &[0, 0, 0]);
    half(&mut file, &[240, 0x0022]);
    // PE32+; sizes of code and data; entry point and code; ImageBase.
    half(&mut file, &[0x020b, 0]);
    word(&mut file, &[raw, 0, 0, PAGE, PAGE, 0, 0]);
    let size = PAGE + used.next_multiple_of(PAGE);
    word(
        &mut file,
        &[PAGE, FILE_ALIGNMENT, 0, 0, 0, 0, size, FILE_ALIGNMENT, 0],
    );
    // EFI application; stack and heap are the firmware's; sixteen empty directories.
    half(&mut file, &[10, 0]);
    word(&mut file, &[0; 8]);
    word(&mut file, &[0, 16]);
    word(&mut file, &[0; 32]);
    file.extend(b".text\0\0\0");
    // Code that may be read and executed.
    word(
        &mut file,
        &[used, PAGE, raw, FILE_ALIGNMENT, 0, 0, 0, 0x6000_0020],
    );
    file.resize(FILE_ALIGNMENT as usize, 0);
    file.extend(section);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn other_tools_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("BOOTX64.EFI");
        std::fs::write(&path, program("no system here")).unwrap();
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).arg(&path).output();
            let output = output.unwrap_or_else(|e| panic!("{program} is needed: {e}"));
            assert!(output.status.success(), "{program}");
            String::from_utf8(output.stdout).unwrap()
        };
        let kind = said("file", &["--brief"]);
        assert!(
            kind.contains("PE32+ executable (EFI application) x86-64"),
            "{kind}"
        );
        let code = said("objdump", &["--disassemble", "--no-show-raw-insn"]);
        for line in [
            "lea    0x1e(%rip),%rdx        # 0x1030",
            "call   *0x100(%rax)",
            "jmp    0x1029",
        ] {
            assert!(code.contains(line), "{line} in {code}");
        }
    }
}

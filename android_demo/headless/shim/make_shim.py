"""Make the "bionic on glibc" shim for one Android build of libtensorflowlite_jni.so.

Android's libraries ask for libc.so, libm.so, libdl.so and liblog.so, with symbols of
version LIBC. This makes them: libbionic.so is bionic.c; libc.so has one jump for every
symbol that the library imports, through a table that libbionic.so fills; the others are
empty. Needs gcc and nm of the library's architecture. Python's standard library alone.
"""

import argparse
import os
import pathlib
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = {"x86_64": "", "arm64-v8a": "aarch64-linux-gnu-"}
JUMP = {
    "x86_64": "  jmp *(shim_table+{offset})(%rip)\n",
    "arm64-v8a": (
        "  adrp x16, shim_table+{offset}\n"
        "  ldr x16, [x16, #:lo12:shim_table+{offset}]\n"
        "  br x16\n"
    ),
}
TABLE = """\
char __sF[456];
void bionic_fill(const char *const *names, void **table, void *streams);
__attribute__((visibility("hidden"))) void *shim_table[{count}];
static const char *const names[] = {{{names}, 0}};
__attribute__((constructor)) static void fill(void) {{
  bionic_fill(names, shim_table, __sF);
}}
"""


def imported_functions(nm: str, library: pathlib.Path) -> list[str]:
    """Names of the functions that `library` must find elsewhere; not the weak ones."""
    listing = subprocess.check_output(
        [nm, "--dynamic", "--undefined-only", str(library)], text=True
    )
    names = {
        line.split()[-1].split("@")[0]
        for line in listing.splitlines()
        if " w " not in line
    }
    return sorted(names - {"__sF"})


def jump_table(abi: str, names: list[str]) -> tuple[str, str]:
    """The assembler text with one jump per name, and the C text of their table."""
    jumps = [".text\n"]
    for i, name in enumerate(names):
        jump = JUMP[abi].format(offset=8 * i)
        jumps.append(
            f".globl {name}\n.type {name}, %function\n{name}:\n{jump}"
            f".size {name}, .-{name}\n"
        )
    jumps.append('.section .note.GNU-stack, "", %progbits\n')
    quoted = ", ".join(f'"{name}"' for name in names)
    return "".join(jumps), TABLE.format(count=len(names), names=quoted)


def make_shim(abi: str, library: pathlib.Path, output: pathlib.Path) -> None:
    """Build the shim's libraries beside a copy of `library` in `output`."""
    gcc, nm = TOOLS[abi] + "gcc", TOOLS[abi] + "nm"
    work = output.with_name(output.name + ".work")
    shutil.rmtree(output, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    jumps, table = jump_table(abi, imported_functions(nm, library))
    (work / "jumps.S").write_text(jumps)
    (work / "table.c").write_text(table)
    (work / "version.map").write_text("LIBC { global: *; };\n")
    (work / "empty.c").write_text("char shim_is_empty;\n")

    def link(name: str, *arguments: str) -> None:
        shared = [gcc, "-shared", "-fPIC", "-O1", f"-Wl,-soname,lib{name}.so"]
        target = ["-o", f"lib{name}.so"]
        subprocess.check_call([*shared, *arguments, *target], cwd=work)

    versioned = ["-nostdlib", "-Wl,--version-script=version.map"]
    link("bionic", "-Wall", str(HERE / "bionic.c"), "-ldl", "-lpthread")
    # -fno-builtin: the table's names are not gcc's built-in functions here.
    sources = ["table.c", "jumps.S"]
    link(
        "c",
        *versioned,
        "-fno-builtin",
        "-Wl,-rpath,$ORIGIN",
        *sources,
        "-L.",
        "./libbionic.so",
    )
    for name in ("m", "dl", "log"):
        link(name, *versioned, "empty.c")
    for leftover in ("jumps.S", "table.c", "version.map", "empty.c"):
        (work / leftover).unlink()
    shutil.copy(library, work)
    os.replace(work, output)


def main() -> None:
    """Read the command line and make the shim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--abi", choices=sorted(TOOLS), required=True)
    parser.add_argument("--library", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    make_shim(arguments.abi, arguments.library, arguments.output)


if __name__ == "__main__":
    main()

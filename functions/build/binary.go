package build

import (
	"context"
	"debug/elf"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/tatami-faas/tatami/internal/fault"
)

// machine is how an ELF file names an architecture.
type machine struct {
	arch  string
	id    elf.Machine
	class elf.Class
	order elf.Data
}

func machines() []machine {
	return []machine{
		{"amd64", elf.EM_X86_64, elf.ELFCLASS64, elf.ELFDATA2LSB},
		{"arm64", elf.EM_AARCH64, elf.ELFCLASS64, elf.ELFDATA2LSB},
		{"386", elf.EM_386, elf.ELFCLASS32, elf.ELFDATA2LSB},
		{"arm", elf.EM_ARM, elf.ELFCLASS32, elf.ELFDATA2LSB},
		{"riscv64", elf.EM_RISCV, elf.ELFCLASS64, elf.ELFDATA2LSB},
		{"ppc64le", elf.EM_PPC64, elf.ELFCLASS64, elf.ELFDATA2LSB},
		{"s390x", elf.EM_S390, elf.ELFCLASS64, elf.ELFDATA2MSB},
		{"loong64", elf.EM_LOONGARCH, elf.ELFCLASS64, elf.ELFDATA2LSB},
	}
}

// Binary makes an image of a static Linux binary, which becomes the entrypoint /function.
func Binary(ctx context.Context, path string, o Options) (*Image, error) {
	o = o.withDefaults(path)
	if err := checkBinary(path, o); err != nil {
		return nil, err
	}
	return single(ctx, path, KindBinary, o)
}

const staticHint = "link it statically (Go: CGO_ENABLED=0, Rust: --target x86_64-unknown-linux-musl, C: -static), or put it with its libraries into an image"

// checkBinary refuses what the kernel of a node could not run on an empty root.
func checkBinary(path string, o Options) error {
	info, err := os.Stat(path)
	if err != nil {
		return fault.Wrap(fault.CodeInvalidArtifact, err, "look at %s", path)
	}
	if info.Size() > o.MaxUnpacked {
		return invalid("%s has %d bytes; at most %d are deployed", path, info.Size(), o.MaxUnpacked)
	}
	f, err := elf.Open(path)
	if err != nil {
		var format *elf.FormatError
		if errors.As(err, &format) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fault.Wrap(fault.CodeInvalidArtifact, err, "%s is no Linux binary", path).WithHint("name a static Linux binary (ELF)")
		}
		return fault.Wrap(fault.CodeInvalidArtifact, err, "read %s", path)
	}
	defer f.Close()
	arch := ""
	for _, m := range machines() {
		if m.id == f.Machine && m.class == f.Class && m.order == f.Data {
			arch = m.arch
		}
	}
	if arch != o.Architecture {
		if arch == "" {
			arch = strings.TrimPrefix(f.Machine.String(), "EM_")
		}
		return invalid("%s is built for %s, the nodes are %s", path, arch, o.Architecture).
			WithHint("build it for the nodes: GOOS=linux GOARCH=%s CGO_ENABLED=0 go build", o.Architecture)
	}
	if f.OSABI != elf.ELFOSABI_NONE && f.OSABI != elf.ELFOSABI_LINUX {
		return invalid("%s is built for %s, the nodes run Linux", path, strings.TrimPrefix(f.OSABI.String(), "ELFOSABI_"))
	}
	switch f.Type {
	case elf.ET_EXEC, elf.ET_DYN:
	case elf.ET_REL:
		return invalid("%s is an object file, not a linked program", path)
	default:
		return invalid("%s is no program (%s)", path, f.Type)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name := "an interpreter"
		if p.Filesz < 4096 {
			if b, err := io.ReadAll(p.Open()); err == nil {
				name = strings.TrimRight(string(b), "\x00")
			}
		}
		return invalid("%s is dynamically linked: it needs %s and its libraries, which an empty image does not have", path, quote(name)).WithHint(staticHint)
	}
	if libs, err := f.ImportedLibraries(); err == nil && len(libs) > 0 {
		return invalid("%s is dynamically linked: it needs %s", path, quote(strings.Join(libs, ", "))).WithHint(staticHint)
	}
	if f.Entry == 0 {
		return invalid("%s is a library, not a program: it has no entry point", path)
	}
	return nil
}

#include "textflag.h"

// func enter()
TEXT ·enter(SB), NOSPLIT|NOFRAME, $0
	MOVQ $308, AX // setns
	MOVQ $4, DI // entered
	MOVQ $0x10000000, SI // CLONE_NEWUSER
	SYSCALL
	TESTQ AX, AX
	JEQ  entered
	MOVQ $72, AX // fcntl
	MOVQ $5, DI // made
	MOVQ $1, SI // F_GETFD
	SYSCALL
	TESTQ AX, AX
	JLT  begin
	MOVQ $272, AX // unshare
	MOVQ $0x10000000, DI // CLONE_NEWUSER
	SYSCALL
	JMP  begin

entered:
	MOVQ $116, AX // setgroups: to none
	XORL DI, DI
	XORL SI, SI
	SYSCALL
	MOVQ $119, AX // setresgid
	XORL DI, DI
	XORL SI, SI
	XORL DX, DX
	SYSCALL
	MOVQ $117, AX // setresuid
	XORL DI, DI
	XORL SI, SI
	XORL DX, DX
	SYSCALL

begin:
	JMP _rt0_amd64_linux(SB)

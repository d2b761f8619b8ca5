#include "textflag.h"

// func endThread()
TEXT ·endThread(SB),NOSPLIT|NOFRAME,$0-0
	XORL DI, DI
	MOVL $60, AX // exit
	SYSCALL
	INT $3

// func endThreadAt() uintptr
TEXT ·endThreadAt(SB),NOSPLIT,$0-8
	LEAQ ·endThread(SB), AX
	MOVQ AX, ret+0(FP)
	RET

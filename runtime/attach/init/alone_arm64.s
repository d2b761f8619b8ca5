#include "textflag.h"

// func endThread()
TEXT ·endThread(SB),NOSPLIT|NOFRAME,$0-0
	MOVD $0, R0
	MOVD $93, R8 // exit
	SVC
	BRK

// func endThreadAt() uintptr
TEXT ·endThreadAt(SB),NOSPLIT,$0-8
	MOVD $·endThread(SB), R0
	MOVD R0, ret+0(FP)
	RET

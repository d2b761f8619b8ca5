#include "textflag.h"

// func enter()
TEXT ·enter(SB), NOSPLIT|NOFRAME, $0
	MOVD $268, R8 // setns
	MOVD $4, R0 // entered
	MOVD $0x10000000, R1 // CLONE_NEWUSER
	SVC
	CBZ R0, entered
	MOVD $25, R8 // fcntl
	MOVD $5, R0 // made
	MOVD $1, R1 // F_GETFD
	SVC
	TBNZ $63, R0, begin
	MOVD $97, R8 // unshare
	MOVD $0x10000000, R0 // CLONE_NEWUSER
	SVC
	B    begin

entered:
	MOVD $159, R8 // setgroups: to none
	MOVD ZR, R0
	MOVD ZR, R1
	SVC
	MOVD $149, R8 // setresgid
	MOVD ZR, R0
	MOVD ZR, R1
	MOVD ZR, R2
	SVC
	MOVD $147, R8 // setresuid
	MOVD ZR, R0
	MOVD ZR, R1
	MOVD ZR, R2
	SVC

begin:
	B _rt0_arm64_linux(SB)

package obs_test

import (
	"testing"

	"github.com/tatami-faas/tatami/tests/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

package invoke

import (
	"errors"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// grant is what a waiter gets: a slot taken on an instance, or why there will be none.
type grant struct {
	inst *instance
	ep   *bus.Endpoint
	rev  *functions.Revision
	err  error
}

// errWaited is granted to who has waited until the deadline.
var errWaited = errors.New("the time to wait is over")

// waiter waits for a slot. It is in one list at most.
type waiter struct {
	pool       *pool
	class      Class
	ready      chan grant
	list       *waitList
	prev, next *waiter
	// expiry is the end of the wait. From then on late is set: a slot that was granted before, and refused, is not waited for again.
	expiry expiry
	late   bool
}

func (p *pool) waiter(c Class) *waiter {
	return &waiter{pool: p, class: c, ready: make(chan grant, 1)}
}

// expire ends the wait, unless a grant is on its way.
func (w *waiter) expire() {
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	w.late = true
	if p.list(w.class).remove(w) {
		w.ready <- grant{err: errWaited}
		p.note(time.Now())
	}
}

// waitList is a first-in first-out list from whose middle a waiter may leave.
type waitList struct {
	head, tail *waiter
	n          int
}

func (l *waitList) pushBack(w *waiter) {
	w.list, w.prev, w.next = l, l.tail, nil
	if l.tail != nil {
		l.tail.next = w
	} else {
		l.head = w
	}
	l.tail = w
	l.n++
}

// pushFront is for a waiter that was granted a slot it could not use.
func (l *waitList) pushFront(w *waiter) {
	w.list, w.prev, w.next = l, nil, l.head
	if l.head != nil {
		l.head.prev = w
	} else {
		l.tail = w
	}
	l.head = w
	l.n++
}

// remove reports whether w was in the list.
func (l *waitList) remove(w *waiter) bool {
	if w.list != l {
		return false
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.head = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.tail = w.prev
	}
	w.list, w.prev, w.next = nil, nil, nil
	l.n--
	return true
}

// popFront returns nil for an empty list.
func (l *waitList) popFront() *waiter {
	w := l.head
	if w != nil {
		l.remove(w)
	}
	return w
}

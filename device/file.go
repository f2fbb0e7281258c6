package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// fileMax bounds what is read: more than CodesMax codes take.
const fileMax = 8 << 20

// file keeps what the machine must not forget. It is always whole: a change is
// written beside it, forced to the disk, and put in its place in one step.
type file struct {
	path string
	// last is the file as this process left it; nil for none.
	last fs.FileInfo
}

// load reads the file. Without one, the machine knows nothing yet.
func (f *file) load(machineNo string) (memory, error) {
	f.sweep()
	r, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return memory{MachineNo: machineNo}, nil
	}
	if err != nil {
		return memory{}, fmt.Errorf("the machine's file cannot be read: %w: let this user read it", err)
	}
	defer func() { _ = r.Close() }()
	if f.last, err = r.Stat(); err != nil {
		return memory{}, err
	}
	text, err := io.ReadAll(io.LimitReader(r, fileMax+1))
	if err != nil {
		return memory{}, err
	}
	m, err := parse(text)
	if err != nil {
		return memory{}, fmt.Errorf("%s is not a machine's file: %w: if it cannot be repaired, "+
			"move it away; the server sends the codes again, but uses that were not reported are lost", f.path, err)
	}
	if m.MachineNo != machineNo {
		return memory{}, fmt.Errorf("%s is the file of the machine %s: give this one a file of its own", f.path, m.MachineNo)
	}
	return m, nil
}

// temporary is the pattern of the files that a change is first written to.
const temporary = "-*.tmp"

// sweep removes what losses of power have left beside the file.
func (f *file) sweep() {
	left, err := filepath.Glob(f.path + temporary)
	if err != nil {
		return // the path is not one that Glob can read; the files do no harm
	}
	for _, name := range left {
		_ = os.Remove(name)
	}
}

// parse reads a file's text, and believes nothing of it that the machine would
// not have written.
func parse(text []byte) (memory, error) {
	var m memory
	if len(text) > fileMax {
		return m, fmt.Errorf("it is larger than %d bytes", fileMax)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, err
	}
	if !eightDigits(m.MachineNo) || m.MachineID < 0 || m.Wrong < 0 || m.Wrong >= Tries || len(m.Codes) > CodesMax {
		return m, errors.New("a number in it is impossible")
	}
	for _, h := range m.Codes {
		if h.ID < 1 || h.ProductID < 1 || !eightDigits(h.Code) || h.Quantity < 1 || h.Quantity > 3 {
			return m, fmt.Errorf("the code with the id %d is impossible", h.ID)
		}
		switch h.State {
		case stateLive, stateUsed, stateReported, stateWithdrawn, stateExpired:
		default:
			return m, fmt.Errorf("the code with the id %d is %q, which means nothing", h.ID, h.State)
		}
	}
	return m, nil
}

// save puts m in the place of the file, and returns once it would survive a
// loss of power.
func (f *file) save(m memory) error {
	if err := f.write(m); err != nil {
		return fmt.Errorf("the machine's file cannot be written: %w", err)
	}
	return nil
}

func (f *file) write(m memory) error {
	if err := f.alone(); err != nil {
		return err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	dir, name := filepath.Split(f.path)
	next, err := os.CreateTemp(filepath.Clean(dir), name+temporary) // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(next.Name()) }() // where it was not renamed
	_, err = next.Write(append(text, '\n'))
	err = errors.Join(err, next.Sync())
	info, errStat := next.Stat()
	if err = errors.Join(err, errStat, next.Close()); err != nil {
		return err
	}
	if err := os.Rename(next.Name(), f.path); err != nil {
		return err
	}
	f.last = info
	return syncDir(filepath.Dir(f.path))
}

// alone refuses to write over what somebody else has written: two processes
// with one file would each vend for the same code.
func (f *file) alone() error {
	info, err := os.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case f.last == nil || !os.SameFile(info, f.last) || !info.ModTime().Equal(f.last.ModTime()) || info.Size() != f.last.Size():
		return fmt.Errorf("another process has written %s: stop one of the two", f.path)
	}
	return nil
}

// syncDir makes the new name last through a loss of power, where the system
// has such a thing.
func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // G304: the directory of the machine's own file
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrInvalid) {
		return err
	}
	return nil
}

package console

import (
	"context"
	"encoding/csv"
	"net/http"
	"time"

	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/sheet"
)

// jobView is a job as its page shows it.
type jobView struct {
	redemption.Job
	UnderWay, Finished, Stopped, Failed bool
	Percent                             int64
	Left                                time.Duration // 0: not known
	LeftText                            string
}

func (s *server) jobView(v *visit, j *redemption.Job) jobView {
	w := jobView{
		Job: *j, UnderWay: j.State == redemption.JobUnderWay, Finished: j.State == redemption.JobDone,
		Stopped: j.State == redemption.JobStopped, Failed: j.State == redemption.JobFailed, Percent: 100,
	}
	if j.Total > 0 {
		w.Percent = min(100, 100*j.Done/j.Total)
	}
	if w.UnderWay && j.Done > 0 && j.Updated.After(j.Started) {
		took := j.Updated.Sub(j.Started)
		w.Left = time.Duration(float64(took) / float64(j.Done) * float64(j.Total-j.Done)).Round(time.Second)
		w.LeftText = v.t("job.left", int(w.Left/time.Second))
		if w.Left > 2*time.Minute {
			w.LeftText = v.t("job.left_minutes", int(w.Left/time.Minute))
		}
	}
	return w
}

func (s *server) job(v *visit) error {
	j, err := s.Redemptions.Job(v.ctx(), v.actor(), number64(v.r.PathValue("id")))
	if err != nil {
		return err
	}
	return v.page(http.StatusOK, "job", "codes", s.jobView(v, &j))
}

// jobEvents keeps a job's page up to date.
func (s *server) jobEvents(v *visit) error {
	id := number64(v.r.PathValue("id"))
	if _, err := s.Redemptions.Job(v.ctx(), v.actor(), id); err != nil {
		return err
	}
	return v.stream("job "+plain(id), "job", "progress", func(ctx context.Context) (any, error) {
		j, err := s.Redemptions.Job(ctx, v.actor(), id)
		return s.jobView(v, &j), err
	})
}

func (s *server) stopJob(v *visit) error {
	j, err := s.Redemptions.StopJob(v.ctx(), v.actor(), number64(v.r.PathValue("id")))
	if err != nil {
		return err
	}
	return v.redirect("/jobs/" + plain(j.ID))
}

// jobCodes hands out the codes that a job has made; that is on record.
func (s *server) jobCodes(v *visit) error {
	j, err := s.Redemptions.Job(v.ctx(), v.actor(), number64(v.r.PathValue("id")))
	if err != nil {
		return err
	}
	if j.Kind != redemption.JobIssue {
		return refusal.New(refusal.InvalidRequest)
	}
	switch how := v.r.PostFormValue("do"); how {
	case "csv", "a4", "letter", "keys":
		return s.handOut(v, how, j.Name, s.revealed(v, j.ID))
	}
	return refusal.New(refusal.InvalidRequest)
}

// revealed are the pages of the codes that a job has made, with their keys.
func (s *server) revealed(v *visit, job int64) func(func([]redemption.View, error) bool) {
	return func(yield func([]redemption.View, error) bool) {
		for after := int64(0); ; {
			list, next, err := s.Redemptions.JobCodes(v.ctx(), v.actor(), job, after, redemption.RevealMax)
			if err != nil {
				yield(nil, err)
				return
			}
			ids := make([]int64, len(list))
			for i := range list {
				ids[i] = list[i].ID
			}
			if len(ids) > 0 && !s.reveal(v, ids, yield) || next == 0 {
				return
			}
			after = next
		}
	}
}

// reveal yields the next codes, with their keys, and reports whether to go on.
func (s *server) reveal(v *visit, ids []int64, yield func([]redemption.View, error) bool) bool {
	err := v.ctx().Err() // who has left is shown no more keys
	if err == nil && !v.still(v.ctx()) {
		err = refusal.New(refusal.Unauthenticated)
	}
	if err != nil {
		yield(nil, err)
		return false
	}
	list, err := s.Redemptions.Reveal(v.ctx(), v.actor(), ids)
	if refusal.CodeOf(err) == refusal.RedemptionNotFound { // deleted in between
		return true
	}
	return yield(list, err) && err == nil
}

// download says that what follows is a file.
func (v *visit) download(kind, name string) {
	h := v.w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	h.Set("Cache-Control", "no-store")
}

// sendCSV sends codes as a table. What begins like a formula is kept from being
// one.
func (s *server) sendCSV(v *visit, pages func(func([]redemption.View, error) bool)) error {
	out := csv.NewWriter(v.w)
	begun := false
	for list, err := range pages {
		if err != nil {
			return err // before the first row it can still be told
		}
		if begun {
			if err := v.goOn(); err != nil {
				return err
			}
		} else {
			begun = true
			v.download("text/csv; charset=utf-8", "codes-"+s.Now().In(v.zone()).Format("2006-01-02-1504")+".csv")
			_, _ = v.w.Write([]byte("\ufeff")) // spreadsheets take it for UTF-8 then
			_ = out.Write([]string{"id", "name", "key", "quota", "expires", "link", "status"})
		}
		for i := range list {
			c := &list[i]
			state, _ := codeState(&c.Code, s.Now())
			expires := ""
			if !c.Expires.IsZero() {
				expires = c.Expires.In(v.zone()).Format(time.RFC3339)
			}
			_ = out.Write([]string{plain(c.ID), cell(c.Name), c.Key, plain(c.Quota), expires, v.redeemLink(c.Key), state}) // what fails is told by Error
		}
		if out.Flush(); out.Error() != nil {
			return nil // the visitor has left, and needs no answer
		}
	}
	if !begun {
		return refusal.New(refusal.RedemptionNotFound)
	}
	return nil
}

// sheets bounds how many sheets are drawn at the same time, each of which takes a
// processor and some 20 MB.
type sheets struct {
	// all are those that are drawn or wait, drawn those that are drawn.
	all, drawn chan struct{}
}

const (
	sheetsMax     = 2 // drawn at the same time
	sheetsWaiting = 6
	sheetTimeout  = time.Minute // for one to be drawn and read
	sheetsRetry   = 10 * time.Second
)

func newSheets() sheets {
	return sheets{make(chan struct{}, sheetsMax+sheetsWaiting), make(chan struct{}, sheetsMax)}
}

// draw calls do when it is its turn. It refuses with refusal.TooBusy if too many
// wait.
func (s sheets) draw(ctx context.Context, do func() error) error {
	select {
	case s.all <- struct{}{}:
		defer func() { <-s.all }()
	default:
		return refusal.Later(refusal.TooBusy, sheetsRetry)
	}
	select {
	case s.drawn <- struct{}{}:
		defer func() { <-s.drawn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return do()
}

// sendSheet sends codes as a sheet to print.
func (s *server) sendSheet(v *visit, paper, title string, pages func(func([]redemption.View, error) bool)) error {
	return s.sheets.draw(v.ctx(), func() error { return s.drawSheet(v, paper, title, pages) })
}

func (s *server) drawSheet(v *visit, paper, title string, pages func(func([]redemption.View, error) bool)) error {
	// Its time begins when its turn has come. Where none can be set there is none.
	_ = http.NewResponseController(v.w).SetWriteDeadline(s.Now().Add(sheetTimeout))
	o := sheet.Options{Title: title, Worth: v.t("sheet.worth"), Until: v.t("sheet.until"), Created: s.Now()}
	if paper == "letter" {
		o.Paper = sheet.Letter
	}
	none := error(refusal.New(refusal.RedemptionNotFound)) // why there is no card: by then the keys were read, and that is on record
	for list, err := range pages {
		if err != nil {
			return err
		}
		for i := range list {
			c := &list[i]
			if err := c.Refuse(0, s.Now()); err != nil { // nobody is to be handed what is worth nothing
				none = err
				continue
			}
			card := sheet.Card{Key: c.Key, Link: v.redeemLink(c.Key), Name: c.Name}
			if len(card.Link) > sheet.MaxLink {
				card.Link = ""
			}
			var err error
			if card.Worth, err = number(c.Quota); err != nil {
				return err
			}
			if !c.Expires.IsZero() {
				card.Until = c.Expires.In(v.zone()).Format("2006-01-02 15:04")
			}
			o.Cards = append(o.Cards, card)
		}
	}
	if len(o.Cards) == 0 {
		return none
	}
	v.download("application/pdf", "codes-"+s.Now().In(v.zone()).Format("2006-01-02-1504")+".pdf")
	return sheet.PDF(v.w, o)
}

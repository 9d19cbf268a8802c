package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"rollcall/centre"
)

// readerFlags are the flags of the command reader.
type readerFlags struct {
	add, request, remove *string
}

// reader adds, removes or lists who may read over the network.
func (c *command) reader(ctx context.Context, f readerFlags) error {
	if c.flags.NArg() > 0 || *f.add != "" && *f.remove != "" || *f.add == "" && *f.request != "" {
		return errors.New("reader takes -add NAME, with -request FILE for a certificate, or -remove NAME, or lists them")
	}
	ctr, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer ctr.Close()
	switch {
	case *f.add != "":
		return c.addReader(ctx, ctr, f)
	case *f.remove != "":
		return ctr.RemoveReader(ctx, *f.remove)
	}
	readers, err := ctr.Readers(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tADDED\tREADS WITH")
	for _, r := range readers {
		with := "token"
		if !r.Until.IsZero() {
			with = "certificate, until " + r.Until.Format(time.DateOnly)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", r.Name, r.Added.Format(time.DateTime), with)
	}
	return table.Flush()
}

// addReader prints what a reader shows: a token, or a certificate.
func (c *command) addReader(ctx context.Context, ctr *centre.Centre, f readerFlags) error {
	if *f.request == "" {
		token, err := ctr.AddReader(ctx, *f.add)
		if err == nil {
			_, err = fmt.Fprintln(c.stdout, token)
		}
		return err
	}
	request, err := readFile(*f.request)
	if err != nil {
		return err
	}
	certificate, err := ctr.CertifyReader(ctx, *f.add, request)
	if err == nil {
		_, err = fmt.Fprint(c.stdout, certificate)
	}
	return err
}

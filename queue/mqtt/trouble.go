package mqtt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"rollcall/queue/chain"
)

// Code names a trouble of the uplink.
type Code string

const (
	NoRoute       Code = "no_route"       // nothing answers at the address
	UnknownServer Code = "unknown_server" // the certificate is not the centre's
	WrongName     Code = "wrong_name"     // the centre's certificate, for another name
	NotValidNow   Code = "not_valid_now"  // the centre's certificate, expired or not yet valid
	OldTLS        Code = "old_tls"
	Refused       Code = "refused"       // the terminal's certificate or its rights
	Lost          Code = "lost"          // it worked and was cut
	Silent        Code = "silent"        // connected, but no answer
	NoReceipt     Code = "no_receipt"    // the broker answers, the centre does not
	WrongReceipt  Code = "wrong_receipt" // the centre's word does not fit this ledger
	LedgerTrouble Code = "ledger"
	Expiring      Code = "expiring" // the terminal's own certificate ends soon
	Expired       Code = "expired"  // it has ended; records wait until there is another
)

// Codes lists every code.
var Codes = []Code{NoRoute, UnknownServer, WrongName, NotValidNow, OldTLS, Refused, Lost, Silent, NoReceipt, WrongReceipt, LedgerTrouble, Expiring, Expired}

// Trouble is what is wrong with the uplink. Its sentences are for the
// caretaker. Records wait meanwhile, whatever the code.
type Trouble struct {
	Code    Code
	Address string    // the broker's
	Until   time.Time // of Expiring and Expired: the certificate's end
	Err     error     // the cause, if one is known
}

// sentences has Chinese and English; %s is the address, or the day of Until.
var sentences = map[Code][2]string{
	NoRoute: {
		"连接不上中心 %s：请检查网线、路由器和地址设置。记录已存本机，恢复后自动上传",
		"nothing answers at %s: check cable, router and the address in [uplink]",
	},
	UnknownServer: {
		"%s 出示的证书不属于本中心：请核对地址；若地址无误，网络中可能有人冒充，请联系中心",
		"%s shows a certificate that is not the centre's: check the address in [uplink]; if it is right, somebody may stand between, so tell the centre",
	},
	WrongName: {
		"%s 的证书是发给另一个名称的：请核对地址，或设置 server_name",
		"the certificate at %s is for another name: check the address in [uplink], or set server_name",
	},
	NotValidNow: {
		"%s 的证书此刻不在有效期内：请核对本机时间；若时间无误，请中心更新证书",
		"the certificate at %s is not valid now: check this terminal's clock; if it is right, the centre must renew the certificate",
	},
	OldTLS: {
		"%s 只支持旧版加密（低于 TLS 1.3）：请中心升级",
		"%s offers only TLS before 1.3: the centre must upgrade it",
	},
	Refused: {
		"%s 拒绝了本终端：证书未登记、已过期或已吊销，请联系中心重新准入",
		"%s refuses this terminal: its certificate is unknown, expired or revoked there; ask the centre to admit it again",
	},
	Lost: {
		"与中心 %s 的连接中断，正在重连",
		"the connection to %s was cut; connecting again",
	},
	Silent: {
		"%s 已连上但没有应答：请检查中心服务",
		"%s does not answer: check the broker there",
	},
	NoReceipt: {
		"%s 收下了记录，但中心没有给出回执：请检查中心服务。记录保留在本机，会再次发送",
		"%s takes records but the centre sends no receipt: check that the centre runs; they are kept and sent again",
	},
	WrongReceipt: {
		"%s 送来的回执与本机账本不符：请立即联系中心，不要删除任何文件",
		"a receipt from %s does not fit this ledger: tell the centre, and delete nothing",
	},
	LedgerTrouble: {
		"读不出本机账本，无法向 %s 发送：请联系维护人员",
		"the ledger cannot be read, so nothing is sent to %s: call support",
	},
	Expiring: {
		"本终端的联网证书将于 %s 到期：请向中心申请新的准入文件，用 rollcall terminal admit 导入，无需重启",
		"this terminal's uplink certificate ends on %s: ask the centre for a new admission and take it in with rollcall terminal admit; no restart is needed",
	},
	Expired: {
		"本终端的联网证书已于 %s 到期，记录已存本机：请向中心申请新的准入文件，用 rollcall terminal admit 导入，无需重启",
		"this terminal's uplink certificate ended on %s; records are kept here: ask the centre for a new admission and take it in with rollcall terminal admit; no restart is needed",
	},
}

// Sentence tells the caretaker what is wrong and what to do.
func (t *Trouble) Sentence() (zh, en string) {
	s, about := sentences[t.Code], t.Address
	if !t.Until.IsZero() {
		about = t.Until.Format(time.DateOnly)
	}
	return fmt.Sprintf(s[0], about), fmt.Sprintf(s[1], about)
}

func (t *Trouble) Error() string {
	_, en := t.Sentence()
	if t.Err == nil {
		return en
	}
	return en + " (" + t.Err.Error() + ")"
}

func (t *Trouble) Unwrap() error { return t.Err }

// Troubles is everything that is wrong with the uplink: the terminal's own
// certificate first, then address by address.
type Troubles []*Trouble

// Sentence tells the caretaker all of it.
func (ts Troubles) Sentence() (zh, en string) {
	var zhs, ens []string
	for _, t := range ts {
		zh, en := t.Sentence()
		zhs, ens = append(zhs, zh), append(ens, en)
	}
	return strings.Join(zhs, "；"), strings.Join(ens, "; ")
}

func (ts Troubles) Error() string { return errors.Join(ts.Unwrap()...).Error() }

func (ts Troubles) Unwrap() []error {
	out := make([]error, len(ts))
	for i, t := range ts {
		out[i] = t
	}
	return out
}

var (
	errLost       = errors.New("connection lost")
	errSilent     = errors.New("no answer in time")
	errNotAllowed = errors.New("not allowed")
	errHandshake  = errors.New("TLS handshake")
	errLedger     = errors.New("reading the ledger")
	errNoReceipt  = errors.New("no receipt")
	errReceipt    = errors.New("receipt refused")
	errRenewed    = errors.New("the certificate was renewed")
)

// explain finds what an error means for a person.
func explain(address string, err error) *Trouble {
	return &Trouble{Code: diagnose(err), Address: address, Err: err}
}

// diagnose goes from what an error says for certain to what it may mean.
func diagnose(err error) Code {
	op, isOp := errors.AsType[*net.OpError](err)
	_, isName := errors.AsType[x509.HostnameError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, isAuthority := errors.AsType[x509.UnknownAuthorityError](err)
	_, isDNS := errors.AsType[*net.DNSError](err)
	_, isNotTLS := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case errors.Is(err, errLedger):
		return LedgerTrouble
	case errors.Is(err, errNoReceipt):
		return NoReceipt
	case errors.Is(err, errReceipt):
		return WrongReceipt
	case errors.Is(err, errSilent):
		return Silent
	case errors.Is(err, errLost):
		return Lost
	case errors.Is(err, errNotAllowed), errors.Is(err, packets.ErrorRefusedNotAuthorised),
		errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword), errors.Is(err, packets.ErrorRefusedIDRejected):
		return Refused
	case isName:
		return WrongName
	case isInvalid && invalid.Reason == x509.Expired:
		return NotValidNow
	case isInvalid, isAuthority, isNotTLS, errors.Is(err, chain.ErrUntrusted):
		return UnknownServer
	case strings.Contains(err.Error(), "protocol version"): // crypto/tls has no type for it
		return OldTLS
	case isOp && op.Op == "remote error": // a TLS alert
		return Refused
	case isDNS, isOp && op.Op == "dial":
		return NoRoute
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, packets.ErrorRefusedServerUnavailable):
		return Silent
	case errors.Is(err, packets.ErrorNetworkError) && !errors.Is(err, errHandshake):
		return Refused // hung up while the terminal introduced itself
	}
	return Lost
}

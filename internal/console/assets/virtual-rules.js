// The rules of a virtual machine: the machine protocol's bytes, and what a
// machine keeps, honours and reports. They are those of the reference machine
// (package device); this file knows neither page nor network, so that they can
// be tried on their own. virtual.js puts them to use.
"use strict";

const machineRules = (() => {
	// Bounds, as the reference machine has them. Times are in milliseconds.
	const messageMax = 8 << 10; // bytes
	const membersMax = 64;
	const tries = 5;
	const pauseFor = 5 * 60_000;
	const codesMax = 10_000;
	const remembered = 24 * 3_600_000;
	const latest = 253_402_300_799_999; // the last instant of the year 9999

	const utf8 = new TextEncoder();
	// Fatal, and a byte order mark is no part of JSON.
	const strictText = () => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

	// ---- MD5, which browsers don't have, over bytes; 32 upper-case digits.

	const shifts = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21];
	const sines = Array.from({ length: 64 }, (_, i) => Math.floor(Math.abs(Math.sin(i + 1)) * 2 ** 32) | 0);

	function md5(bytes) {
		const blocks = ((bytes.length + 8) >> 6) + 1;
		const padded = new Uint8Array(blocks * 64);
		padded.set(bytes);
		padded[bytes.length] = 0x80;
		const words = new DataView(padded.buffer);
		words.setUint32(padded.length - 8, bytes.length << 3, true);
		words.setUint32(padded.length - 4, Math.floor(bytes.length / 2 ** 29), true);

		let [a0, b0, c0, d0] = [0x67452301, 0xefcdab89 | 0, 0x98badcfe | 0, 0x10325476];
		for (let at = 0; at < padded.length; at += 64) {
			let [a, b, c, d] = [a0, b0, c0, d0];
			for (let i = 0; i < 64; i++) {
				const round = i >> 4;
				let f, g;
				switch (round) {
				case 0: f = (b & c) | (~b & d); g = i; break;
				case 1: f = (d & b) | (~d & c); g = (5 * i + 1) & 15; break;
				case 2: f = b ^ c ^ d; g = (3 * i + 5) & 15; break;
				default: f = c ^ (b | ~d); g = (7 * i) & 15;
				}
				const sum = (a + f + sines[i] + words.getInt32(at + 4 * g, true)) | 0;
				const by = shifts[4 * round + (i & 3)];
				[a, d, c, b] = [d, c, b, (b + ((sum << by) | (sum >>> (32 - by)))) | 0];
			}
			a0 = (a0 + a) | 0;
			b0 = (b0 + b) | 0;
			c0 = (c0 + c) | 0;
			d0 = (d0 + d) | 0;
		}
		const out = new DataView(new ArrayBuffer(16));
		[a0, b0, c0, d0].forEach((word, i) => out.setInt32(4 * i, word, true));
		return hex(new Uint8Array(out.buffer));
	}

	function hex(bytes) {
		return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("").toUpperCase();
	}

	// ---- Signatures. Members are a Map of strings.

	// percentEncode writes a value as HTML forms do.
	function percentEncode(value) {
		let out = "";
		for (const b of utf8.encode(value)) {
			const c = String.fromCharCode(b);
			if (/[A-Za-z0-9*._-]/.test(c)) {
				out += c;
			} else {
				out += c === " " ? "+" : "%" + hex([b]);
			}
		}
		return out;
	}

	// byBytes is the order of names: that of their bytes, which is not quite
	// that of JavaScript's strings.
	function byBytes(a, b) {
		const [x, y] = [utf8.encode(a), utf8.encode(b)];
		for (let i = 0; i < x.length && i < y.length; i++) {
			if (x[i] !== y[i]) {
				return x[i] - y[i];
			}
		}
		return x.length - y.length;
	}

	// signedText is what a signature is over, up to the app key.
	function signedText(members, percent) {
		return [...members]
			.filter(([name, value]) => name !== "sign" && value !== "")
			.sort(([a], [b]) => byBytes(a, b))
			.map(([name, value]) => name + "=" + (percent ? percentEncode(value) : value))
			.join("&") + "&key=";
	}

	function sign(members, appKey, percent) {
		return md5(utf8.encode(signedText(members, percent) + appKey));
	}

	// verify says in which form the members were signed with the app key: "raw",
	// "percent-encoded", or "" for neither.
	function verify(members, appKey) {
		if (appKey === "") {
			return "";
		}
		for (const form of ["raw", "percent-encoded"]) {
			const want = sign(members, appKey, form !== "raw");
			const have = members.get("sign") ?? "";
			let differs = have.length ^ want.length;
			for (let i = 0; i < want.length; i++) {
				differs |= have.charCodeAt(i) ^ want.charCodeAt(i);
			}
			if (differs === 0) {
				return form;
			}
		}
		return "";
	}

	// ---- Reading.

	// Wrong is why a message is not to be believed, or a code not accepted: a
	// word that the page has a sentence for.
	class Wrong extends Error {
		constructor(reason, detail = "") {
			super(detail ? reason + ": " + detail : reason);
			this.reason = reason;
			this.detail = detail;
		}
	}

	// decode reads a message: one JSON object whose values are all strings, with
	// no name twice, or standard Base64 of one. The first byte tells which.
	function decode(bytes) {
		if (bytes.length > messageMax) {
			throw new Wrong("large", String(bytes.length));
		}
		const base64 = bytes.length === 0 || !"{ \t\r\n".includes(String.fromCharCode(bytes[0]));
		if (base64) {
			bytes = fromBase64(bytes);
		}
		let text;
		try {
			text = strictText().decode(bytes);
		} catch {
			throw new Wrong("text");
		}
		return { members: object(text), base64, text };
	}

	function fromBase64(bytes) {
		const text = String.fromCharCode(...bytes).replace(/[\r\n]/g, "");
		if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) {
			throw new Wrong("form");
		}
		return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
	}

	// object reads what JSON.parse would read more generously: it takes a name
	// that comes twice, and has no bound.
	function object(text) {
		const space = /[ \t\r\n]*/y;
		const quoted = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*"/y;
		let at = 0;
		const skip = () => {
			space.lastIndex = at;
			space.test(text);
			at = space.lastIndex;
		};
		const take = (c) => {
			skip();
			if (text[at] !== c) {
				return false;
			}
			at++;
			return true;
		};
		const string = () => {
			skip();
			quoted.lastIndex = at;
			const found = quoted.exec(text);
			if (!found) {
				throw new Wrong("json");
			}
			at = quoted.lastIndex;
			// Half a character becomes what the server reads for it.
			return new TextDecoder("utf-8", { ignoreBOM: true }).decode(utf8.encode(JSON.parse(found[0])));
		};

		if (!take("{")) {
			throw new Wrong("json");
		}
		const members = new Map();
		if (!take("}")) {
			do {
				if (members.size === membersMax) {
					throw new Wrong("members");
				}
				const name = string();
				if (!take(":")) {
					throw new Wrong("json");
				}
				const value = string();
				if (members.has(name)) {
					throw new Wrong("twice", name);
				}
				members.set(name, value);
			} while (take(","));
			if (!take("}")) {
				throw new Wrong("json");
			}
		}
		skip();
		if (at !== text.length) {
			throw new Wrong("json");
		}
		return members;
	}

	const eightDigits = (s) => /^[0-9]{8}$/.test(s);

	// positive reads a whole number from 1 to 2^63-1. Ids stay text, as numbers
	// here are exact to 2^53 only.
	function positive(members, name) {
		const text = members.get(name) ?? "";
		const n = /^[0-9]{1,40}$/.test(text) ? BigInt(text) : 0n;
		if (n < 1n || n >= 1n << 63n) {
			throw new Wrong("member", name);
		}
		return n.toString();
	}

	// instant tells seconds and milliseconds apart by their size.
	const instant = (n) => (n < 1e11 ? n * 1000 : n);

	// pickupOf reads the pickup code that a create is about.
	function pickupOf(members) {
		const p = { id: positive(members, "id"), product: positive(members, "product_id"), code: members.get("code") ?? "" };
		if (!eightDigits(p.code)) {
			throw new Wrong("member", "code");
		}
		p.quantity = Number(positive(members, "quantity"));
		if (p.quantity > 3) {
			throw new Wrong("member", "quantity");
		}
		p.expires = instant(Number(positive(members, "expired_at")));
		if (p.expires > latest) {
			throw new Wrong("member", "expired_at");
		}
		if (members.get("used") !== "0") {
			throw new Wrong("member", "used");
		}
		return p;
	}

	// ---- Writing.

	// encode signs the members and writes them as text, the signature in the
	// fourth place, where the protocol shows it.
	function encode(members, style) {
		const list = [...members];
		list.splice(3, 0, ["sign", sign(new Map(members), style.appKey, style.percent)]);
		const text = "{" + list.map(([name, value]) => JSON.stringify(name) + ":" + JSON.stringify(value)).join(",") + "}";
		return style.base64 ? btoa(String.fromCharCode(...utf8.encode(text))) : text;
	}

	// ---- What a machine knows.

	const states = ["live", "used", "reported", "withdrawn", "expired"];

	// Machine is a machine's half of the pickup codes. It needs no network.
	//
	// The options are no, appKey, percent and base64 (how it writes), now (the
	// clock), and store: load() returns a text or null, save(text) throws where
	// it cannot be kept. Each change is saved before anybody is told of it; where
	// it can't be, the machine knows what it knew before and save's error is
	// thrown.
	class Machine {
		#memory;

		constructor(options) {
			Object.assign(this, options);
			this.vending = null; // what is on its way out
			const text = this.store.load();
			this.#memory = text === null ? { no: this.no, id: "", codes: [], wrong: 0, pausedFrom: 0, pausedUntil: 0 } : parse(text, this.no);
		}

		// codes lists the codes that may be used now.
		codes() {
			const now = this.now();
			return this.#memory.codes.filter((h) => h.state === "live" && now < h.expires);
		}

		// unreported is how many uses the broker has not acknowledged yet.
		unreported() {
			return this.#memory.codes.filter((h) => h.state === "used").length;
		}

		// enter takes a code that a customer has typed and returns what it is good
		// for; the goods may move then, and done() is called when they have. It
		// throws Wrong: digits, used, expired, unknown (with left), paused (with
		// until), or busy while another customer is served.
		enter(typed) {
			if (this.vending) {
				throw new Wrong("busy");
			}
			const code = typed.replace(/\s/g, "");
			if (!eightDigits(code)) {
				throw new Wrong("digits");
			}
			const now = this.now();
			this.#checkPause(now);
			const known = this.#find(code, now);
			if (!known) {
				throw this.#wrong(now);
			}
			if (known.state === "used" || known.state === "reported") {
				throw new Wrong("used");
			}
			if (known.state === "expired" || now >= known.expires) {
				throw new Wrong("expired");
			}
			this.#change((m) => {
				m.codes.filter((h) => same(h, known)).forEach((h) => { h.state = "used"; });
				m.wrong = m.pausedFrom = m.pausedUntil = 0;
				return true;
			});
			this.vending = known;
			return known;
		}

		done() {
			this.vending = null;
		}

		// pausedUntil is when codes may be entered again; 0: now.
		pausedUntil() {
			return this.now() < this.#memory.pausedUntil ? this.#memory.pausedUntil : 0;
		}

		// The pause begins again where the clock was set back behind its beginning:
		// it must not end early, nor last until the clock has caught up.
		#checkPause(now) {
			if (now >= this.#memory.pausedUntil) {
				return;
			}
			if (now < this.#memory.pausedFrom) {
				this.#change((m) => pause(m, now));
			}
			throw Object.assign(new Wrong("paused"), { until: this.#memory.pausedUntil });
		}

		#wrong(now) {
			this.#change((m) => {
				m.pausedFrom = m.pausedUntil = 0; // one that is over
				m.wrong++;
				if (m.wrong === tries) {
					pause(m, now);
				}
				return true;
			});
			if (this.#memory.wrong === 0) {
				return Object.assign(new Wrong("paused"), { until: this.#memory.pausedUntil });
			}
			return Object.assign(new Wrong("unknown"), { left: tries - this.#memory.wrong });
		}

		// A code that can be used comes before one that was, and that before one
		// that has expired.
		#find(code, now) {
			const order = ["live", "used", "reported", "expired"];
			return this.#memory.codes
				.filter((h) => h.code === code && h.state !== "withdrawn" && !over(h, now))
				.sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state))[0];
		}

		// receive does what a message says, and returns it decoded, with what came
		// of it: added, changed, withdrawn, again (a use that is to be reported once
		// more), nothing, or dropped with a reason. Whatever is returned may be
		// acknowledged; what is thrown is the store's, and must come again.
		receive(bytes) {
			const out = { outcome: "dropped", reason: "", detail: "", members: new Map(), base64: false, text: "", form: "" };
			try {
				Object.assign(out, decode(bytes));
				out.form = verify(out.members, this.appKey);
				if ((out.members.get("client_id") ?? "") !== this.no) {
					throw new Wrong("address", out.members.get("client_id") ?? "");
				}
				if (out.form === "") {
					throw new Wrong("signature");
				}
				switch (out.members.get("method")) {
				case "client.pickup_codes.create":
					out.pickup = pickupOf(out.members);
					out.outcome = this.#add(out.pickup, out.members);
					break;
				case "client.pickup_codes.delete":
					out.outcome = this.#withdraw(positive(out.members, "id"), out);
					break;
				default:
					out.outcome = "nothing"; // the protocol has more than pickup codes
				}
			} catch (e) {
				if (!(e instanceof Wrong)) {
					throw e;
				}
				out.outcome = "dropped";
				out.reason = e.reason;
				out.detail = e.detail;
			}
			return out;
		}

		#add(p, members) {
			const now = this.now();
			let outcome = "nothing";
			let refused;
			this.#change((m) => {
				const learned = learn(m, members);
				if (unheard(m, p.id, p.code)) {
					outcome = "again";
				} else if (now >= p.expires) {
					refused = new Wrong("late");
				} else {
					try {
						outcome = add(m, p, now);
					} catch (e) {
						refused = e;
					}
				}
				return learned || outcome !== "nothing";
			});
			if (refused) {
				throw refused;
			}
			return outcome;
		}

		#withdraw(id, out) {
			let outcome = "nothing";
			this.#change((m) => {
				const learned = learn(m, out.members);
				const found = m.codes.find((h) => h.id === id && (h.state === "live" || h.state === "expired"));
				if (found) {
					found.state = "withdrawn";
					outcome = "withdrawn";
				} else if (unheard(m, id, "")) {
					outcome = "again";
				}
				out.pickup = m.codes.find((h) => h.id === id);
				return learned || outcome !== "nothing";
			});
			return outcome;
		}

		// nextReport is a use that the broker does not know of; none while its
		// goods are on their way out. reported notes that the broker has it.
		nextReport() {
			return this.#memory.codes.find((h) => h.state === "used" && !(this.vending && same(h, this.vending)));
		}

		reported(use) {
			this.#change((m) => {
				m.codes.filter((h) => same(h, use)).forEach((h) => { h.state = "reported"; });
				return true;
			});
		}

		// forget forgets what is over.
		forget() {
			this.#change(() => false);
		}

		#change(f) {
			const next = structuredClone(this.#memory);
			const forgot = forget(next, this.now());
			if (!f(next) && !forgot) {
				return;
			}
			this.store.save(JSON.stringify(next));
			this.#memory = next;
		}

		// What it says. Each returns its members, which encode writes.

		put(use) {
			return this.#uplink("client.pickup_codes.put", [["id", use.id], ["used", "1"]]);
		}

		heartbeat(minutes) {
			return this.#uplink("client.heartbeat", [["network_type", "ethernet"], ["network_rssi", "0"], ["uptime_minutes_today", String(minutes)]]);
		}

		offline(reason) {
			return this.#uplink("client.offline", [["reason", reason]]);
		}

		#uplink(method, members) {
			return [
				["timestamp", String(Math.floor(this.now() / 1000))],
				["machine_id", this.#memory.id || "000"], // until a message has told it
				["method", method],
				["client_id", this.no],
				...members,
				["status", "0"],
			];
		}

		encode(members) {
			return encode(members, this);
		}
	}

	// The id alone isn't enough: a server that was set up anew counts from 1 again.
	const same = (a, b) => a.id === b.id && a.code === b.code;

	// A use must be known until it is reported, however long that takes.
	const over = (h, now) => h.state !== "used" && now >= h.expires + remembered;

	function forget(m, now) {
		let changed = false;
		for (const h of m.codes) {
			if (h.state === "live" && now >= h.expires) {
				h.state = "expired"; // and it stays so if the clock is set back
				changed = true;
			}
		}
		const before = m.codes.length;
		m.codes = m.codes.filter((h) => !over(h, now));
		return changed || m.codes.length < before;
	}

	function learn(m, members) {
		let id;
		try {
			id = positive(members, "machine_id");
		} catch {
			return false;
		}
		const news = id !== m.id;
		m.id = id;
		return news;
	}

	// add keeps a code. What has been used or withdrawn stays so, however often
	// the code is sent.
	function add(m, p, now) {
		const h = m.codes.find((h) => same(h, p));
		if (h) {
			const equal = h.product === p.product && h.quantity === p.quantity && h.expires === p.expires;
			if (h.state !== "expired" && (h.state !== "live" || equal)) {
				return "nothing";
			}
			Object.assign(h, p, { state: "live" }); // expired it was by a clock that was wrong
			return "changed";
		}
		// The digits of an id never change: this one is of a new server.
		m.codes = m.codes.filter((h) => h.id !== p.id || h.state === "used");
		if (m.codes.length >= codesMax) {
			m.codes = m.codes.filter((h) => h.state === "used" || now < h.expires);
		}
		if (m.codes.length >= codesMax) {
			throw new Wrong("full");
		}
		m.codes.push({ ...p, state: "live" });
		return "added";
	}

	// unheard has a use reported again: a server that still speaks of the code
	// does not know of it. A withdrawal names no digits.
	function unheard(m, id, digits) {
		const h = m.codes.find((h) => h.id === id && (digits === "" || h.code === digits) && h.state === "reported");
		if (!h) {
			return false;
		}
		h.state = "used";
		return true;
	}

	function pause(m, now) {
		m.wrong = 0;
		m.pausedFrom = now;
		m.pausedUntil = now + pauseFor;
		return true;
	}

	// parse reads what was saved, and believes nothing that would not have been.
	function parse(text, no) {
		const whole = (n) => Number.isSafeInteger(n) && n >= 0;
		const id = (s) => typeof s === "string" && /^[1-9][0-9]{0,18}$/.test(s);
		let m;
		try {
			m = JSON.parse(text);
		} catch {
			throw new Wrong("memory");
		}
		const good = m !== null && typeof m === "object" && m.no === no && (m.id === "" || id(m.id)) &&
			whole(m.wrong) && m.wrong < tries && whole(m.pausedFrom) && whole(m.pausedUntil) &&
			Array.isArray(m.codes) && m.codes.length <= codesMax && m.codes.every((h) => h !== null && typeof h === "object" &&
				id(h.id) && id(h.product) && typeof h.code === "string" && eightDigits(h.code) &&
				whole(h.quantity) && h.quantity >= 1 && h.quantity <= 3 && whole(h.expires) && states.includes(h.state));
		if (!good) {
			throw new Wrong("memory");
		}
		return m;
	}

	return { Machine, Wrong, codesMax, decode, encode, md5, messageMax, percentEncode, pauseFor, remembered, sign, signedText, tries, utf8, verify };
})();

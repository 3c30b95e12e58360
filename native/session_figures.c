/* What a session counts, as the API gives it out. */
#include "kcp.h"
#include "session.h"
#include "wire.h"

void session_info(struct session *session, struct kcps_info *info)
{
    struct kcp_state state;
    kcp_snapshot(session->kcp, &state);
    *info = (struct kcps_info){
        .conv = state.conv,
        .mtu = session->config.mtu,
        .mss = kcp_settings_of(session->kcp)->mtu - WIRE_HEADER,
        .srtt = state.srtt,
        .rttvar = state.rttvar,
        .rto = state.rto,
        .snd_wnd = session->config.sndwnd,
        .rcv_wnd = session->config.rcvwnd,
        .rmt_wnd = state.rmt_wnd,
        .cwnd = state.cwnd,
        .ssthresh = state.ssthresh,
        .bdp_limit = state.bdp_limit,
        .in_flight = state.snd_nxt - state.snd_una,
        .queued = state.snd_end - state.snd_nxt,
        .recv_queued = state.rcv_nxt - state.rcv_head,
        .bytes_sent = state.counters.bytes_sent,
        .bytes_received = state.counters.bytes_received,
        .in_pkts = session->in_pkts,
        .out_pkts = session->out_pkts,
        .in_bytes = session->in_bytes,
        .out_bytes = session->out_bytes,
        .in_segs = state.counters.in_segs,
        .out_segs = state.counters.out_segs,
        .retrans_segs = state.counters.retrans_segs,
        .fast_retrans_segs = state.counters.fast_retrans_segs,
        .early_retrans_segs = state.counters.early_retrans_segs,
        .lost_segs = state.counters.lost_segs,
        .spurious_segs = state.counters.spurious_segs,
        .repeat_segs = state.counters.repeat_segs,
        .in_errs = session->in_errs,
        .oob_packets = session->oob_packets,
        .phase = session->phase,
    };
    if (session->decoder) {
        struct fec_counters fec;
        fec_decoder_counters(session->decoder, &fec);
        info->fec_recovered = fec.recovered;
        info->fec_errs = fec.errs;
        info->fec_parity_shards = fec.parity_shards;
    }
}

void session_count(const struct session *session, uint64_t *totals)
{
    struct kcp_state state;
    kcp_snapshot(session->kcp, &state);
    totals[SNMP_BYTES_SENT] += state.counters.bytes_sent;
    totals[SNMP_BYTES_RECEIVED] += state.counters.bytes_received;
    totals[SNMP_KCP_IN_ERRORS] += session->in_errs;
    totals[SNMP_IN_PKTS] += session->in_pkts;
    totals[SNMP_OUT_PKTS] += session->out_pkts;
    totals[SNMP_IN_SEGS] += state.counters.in_segs;
    totals[SNMP_OUT_SEGS] += state.counters.out_segs;
    totals[SNMP_IN_BYTES] += session->in_bytes;
    totals[SNMP_OUT_BYTES] += session->out_bytes;
    totals[SNMP_RETRANS_SEGS] += state.counters.retrans_segs;
    totals[SNMP_FAST_RETRANS_SEGS] += state.counters.fast_retrans_segs;
    totals[SNMP_EARLY_RETRANS_SEGS] += state.counters.early_retrans_segs;
    totals[SNMP_LOST_SEGS] += state.counters.lost_segs;
    totals[SNMP_REPEAT_SEGS] += state.counters.repeat_segs;
    totals[SNMP_OOB_PACKETS] += session->oob_packets;
    if (session->decoder) {
        struct fec_counters fec;
        fec_decoder_counters(session->decoder, &fec);
        totals[SNMP_FEC_RECOVERED] += fec.recovered;
        totals[SNMP_FEC_ERRS] += fec.errs;
        totals[SNMP_FEC_PARITY_SHARDS] += fec.parity_shards;
    }
}
